// One crystal in large inside `box`: picture, legend, facts. Every text of a crystal is set as text, never as markup.
"use strict";

const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

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
const address = (path) => path.split("/").map(encodeURIComponent).join("/");

class CrystalFrame {
  constructor(box, elements) {
    this.box = box;
    this.elements = elements;
    this.view = new CrystalView(box.querySelector("canvas"), elements).interactive();
    const cells = box.querySelector(".cells");
    cells.addEventListener("click", () => {
      this.view.repeat = this.view.repeat === 1 ? 2 : 1;
      cells.textContent = this.view.repeat === 1 ? "2×2×2 cells" : "one cell";
      this.view.show(this.view.crystal);
    });
  }

  open(crystal) {
    const find = (selector) => this.box.querySelector(selector);
    find("h3").replaceChildren(formulaNode(crystal.formula), ` ${crystal.id}`);
    const facts = Object.entries(crystal.facts).filter(([, value]) => value !== null && value !== "");
    find("dl").replaceChildren(
      ...facts.flatMap(([name, value]) => [
        make("dt", { textContent: name.replaceAll("_", " ") }),
        make("dd", { textContent: shown(value) }),
      ]),
    );
    find(".legend").replaceChildren(
      ...[...new Set(crystal.z)].map((z) => {
        const dot = make("i");
        dot.style.background = this.elements[z][1];
        return make("span", {}, dot, this.elements[z][0]);
      }),
    );
    const link = find(".cif");
    link.hidden = !crystal.cif;
    if (crystal.cif) link.href = address(crystal.cif);
    if (this.box.showModal && !this.box.open) this.box.showModal();
    this.view.show(crystal);
  }
}
