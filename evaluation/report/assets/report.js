// The page's behaviour: sortable tables, the crystals of a set, one crystal in large. No request is ever made.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

// A heading sorts its table: numbers by `data-value` or their text, empty cells last, groups kept together.
const cellValue = (row, column) => {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  if (text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
};
const compare = (a, b, sign) => {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === typeof b && typeof a === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
};
const sortTable = (heading) => {
  const column = heading.cellIndex, table = heading.closest("table");
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
    rows.sort((a, b) => compare(cellValue(a, column), cellValue(b, column), down ? -1 : 1));
    body.append(...rows);
  }
};
const sortable = (table) => {
  for (const heading of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sortTable(heading));
    heading.addEventListener("keydown", (e) => e.key === "Enter" && sortTable(heading));
  }
};
document.querySelectorAll("table.sortable:not(#rows)").forEach(sortable);

// "Na1Cl1" with the ones left out and the numbers lowered.
const formulaNode = (text) => {
  const node = make("span", { className: "formula" });
  for (const [, symbol, count] of text.matchAll(/([A-Z][a-z]?)(\d*)/g)) {
    node.append(symbol);
    if (count && count !== "1") node.append(make("sub", { textContent: count }));
  }
  return node;
};
const shown = (value) => {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" && !Number.isInteger(value)) return Number(value.toPrecision(4)).toString();
  return String(value);
};

// One crystal in large, with its row of facts.
const dialog = document.getElementById("large");
const large = new CrystalView(dialog.querySelector("canvas"), data.elements).interactive();
const openCrystal = (set, crystal) => {
  dialog.querySelector("h3").replaceChildren(formulaNode(crystal.formula), ` ${crystal.id}`);
  const facts = Object.entries(crystal.facts).filter(([, value]) => value !== null && value !== "");
  dialog.querySelector("dl").replaceChildren(
    ...facts.flatMap(([name, value]) => [
      make("dt", { textContent: name.replaceAll("_", " ") }),
      make("dd", { textContent: shown(value) }),
    ]),
  );
  const legend = [...new Set(crystal.z)].map((z) => {
    const dot = make("i");
    dot.style.background = data.elements[z][1];
    return make("span", {}, dot, data.elements[z][0]);
  });
  dialog.querySelector(".legend").replaceChildren(...legend);
  dialog.querySelector(".where").textContent = set;
  if (!dialog.open) dialog.showModal();
  large.show(crystal);
};
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (e) => e.target === dialog && dialog.close());
const cells = dialog.querySelector(".cells");
cells.addEventListener("click", () => {
  large.repeat = large.repeat === 1 ? 2 : 1;
  cells.textContent = large.repeat === 1 ? "2×2×2 cells" : "one cell";
  large.show(large.crystal);
});

// The crystals of the chosen set: pictures drawn when they scroll into sight, and their table.
const gallery = document.getElementById("gallery"), rows = document.getElementById("rows");
const drawn = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    drawn.unobserve(entry.target);
    entry.target.view.show(entry.target.crystal);
  }
}, { rootMargin: "200px" });
const choose = (name) => {
  const set = data.sets[name];
  for (const button of document.querySelectorAll("#sets button"))
    button.setAttribute("aria-pressed", button.dataset.set === name);
  gallery.replaceChildren(
    ...set.crystals.slice(0, data.pictures).map((crystal) => {
      const canvas = make("canvas");
      canvas.crystal = crystal;
      canvas.view = new CrystalView(canvas, data.elements);
      drawn.observe(canvas);
      const group = crystal.facts.space_group_loose;
      const label = make("figcaption", {}, formulaNode(crystal.formula));
      label.append(make("small", { textContent: group ? `space group ${group}` : "no space group" }));
      const card = make("figure", { tabIndex: 0 }, canvas, label);
      card.addEventListener("click", () => openCrystal(name, crystal));
      card.addEventListener("keydown", (e) => e.key === "Enter" && openCrystal(name, crystal));
      return card;
    }),
  );
  document.getElementById("rows-note").textContent = set.note;
  const head = make("tr", {}, ...set.columns.map((c) => make("th", { textContent: c.replaceAll("_", " ") })));
  const body = make("tbody");
  for (const crystal of set.crystals) {
    const row = make("tr");
    for (const column of set.columns) {
      const value = column === "id" ? crystal.id : crystal.facts[column];
      const cell = make("td");
      cell.dataset.value = value === null || value === undefined ? "" : String(value);
      cell.append(column === "formula" ? formulaNode(crystal.formula) : shown(value));
      row.append(cell);
    }
    row.addEventListener("click", () => openCrystal(name, crystal));
    body.append(row);
  }
  rows.replaceChildren(make("thead", {}, head), body);
  sortable(rows);
};
const names = Object.keys(data.sets);
document.getElementById("sets").append(
  ...names.map((name) => {
    const button = make("button", { type: "button", textContent: name });
    button.dataset.set = name;
    button.addEventListener("click", () => choose(name));
    return button;
  }),
);
if (names.length) choose(names[0]);
document.getElementById("filter").addEventListener("input", (e) => {
  const wanted = e.target.value.trim().toLowerCase();
  for (const row of rows.tBodies[0]?.rows ?? [])
    row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
});
