// The page's behaviour: sortable tables, the crystals of a set, one crystal in large. No request is ever made.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

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
  if (table.id === "rows") showPictures();
};
const sortable = (table) => {
  for (const heading of table.tHead.rows[table.tHead.rows.length - 1].cells) {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sortTable(heading));
    heading.addEventListener("keydown", (e) => e.key === "Enter" && sortTable(heading));
  }
};
document.querySelectorAll("table.sortable:not(#rows)").forEach(sortable);

// One crystal in large, with its row of facts.
const dialog = document.getElementById("large");
const large = new CrystalFrame(dialog, data.elements);
const openCrystal = (set, crystal) => {
  dialog.querySelector(".where").textContent = set;
  large.open(crystal);
};
dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (e) => e.target === dialog && dialog.close());

// The crystals of the chosen set: their table, and pictures that exist only while they are in sight.
const gallery = document.getElementById("gallery"), rows = document.getElementById("rows");
const drawn = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) target.view.show(target.crystal);
    else target.width = target.height = 0;
  }
}, { root: gallery, rootMargin: "200px" });
const pictureOf = (name, crystal) => {
  const canvas = make("canvas");
  canvas.crystal = crystal;
  canvas.view = new CrystalView(canvas, data.elements);
  drawn.observe(canvas);
  const group = crystal.facts.space_group_loose ?? crystal.facts.space_group;
  const label = make("figcaption", {}, formulaNode(crystal.formula));
  label.append(make("small", { textContent: group ? `space group ${group}` : "no space group" }));
  const card = make("figure", { tabIndex: 0 }, canvas, label);
  card.addEventListener("click", () => openCrystal(name, crystal));
  card.addEventListener("keydown", (e) => e.key === "Enter" && openCrystal(name, crystal));
  return card;
};
// Pictures follow the order and the filter of the rows.
const showPictures = () => {
  const all = [...(rows.tBodies[0]?.rows ?? [])];
  for (const row of all) row.card.hidden = row.hidden;
  gallery.replaceChildren(...all.map((row) => row.card));
};
const choose = (name) => {
  const set = data.sets[name];
  for (const button of document.querySelectorAll("#sets button"))
    button.setAttribute("aria-pressed", button.dataset.set === name);
  drawn.disconnect();
  document.getElementById("rows-note").textContent = set.note;
  const head = make("tr", {}, ...set.columns.map((c) => make("th", { textContent: c.replaceAll("_", " ") })));
  const body = make("tbody");
  for (const crystal of set.crystals) {
    const row = make("tr");
    for (const column of set.columns) {
      const value = column === "id" ? crystal.id : crystal.facts[column];
      const cell = make("td");
      cell.dataset.value = value === null || value === undefined ? "" : String(value);
      const linked = column === "id" && crystal.cif;
      cell.append(
        linked ? make("a", { textContent: shown(value), href: address(crystal.cif), title: "CIF" })
        : column === "formula" ? formulaNode(crystal.formula)
        : shown(value),
      );
      if (linked) cell.firstChild.addEventListener("click", (e) => e.stopPropagation());
      row.append(cell);
    }
    row.card = pictureOf(name, crystal);
    row.addEventListener("click", () => openCrystal(name, crystal));
    body.append(row);
  }
  rows.replaceChildren(make("thead", {}, head), body);
  sortable(rows);
  showPictures();
};
const names = Object.keys(data.sets);
if (names.length > 1) document.getElementById("sets").append(
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
  showPictures();
});
