// Draws one crystal as balls and sticks on a 2D canvas. Positions in Å; rows of `cell` are lattice vectors.
// A 2D context, unlike WebGL, has no limit on how many pictures a page may hold and needs no GPU.
"use strict";

class CrystalView {
  // crystal: {cell: 9 numbers, z: atomic numbers, frac: 3 numbers per atom}
  // elements: {z: [symbol, "#rrggbb", covalent radius in Å]}
  constructor(canvas, elements) {
    this.canvas = canvas;
    this.elements = elements;
    this.turn = CrystalView.rotation(-1.25, 0.45);
    this.zoom = 1;
    this.repeat = 1;
  }

  static rotation(pitch, yaw) {
    const [a, b, c, d] = [Math.cos(pitch), Math.sin(pitch), Math.cos(yaw), Math.sin(yaw)];
    return [c, -d, 0, a * d, a * c, -b, b * d, b * c, a];
  }

  static product(m, n) {
    const out = [];
    for (let i = 0; i < 3; i++)
      for (let j = 0; j < 3; j++)
        out.push(m[3 * i] * n[j] + m[3 * i + 1] * n[3 + j] + m[3 * i + 2] * n[6 + j]);
    return out;
  }

  show(crystal) {
    this.crystal = crystal;
    this.build();
    this.draw();
  }

  position(f) {
    const c = this.crystal.cell;
    return [0, 1, 2].map((k) => f[0] * c[k] + f[1] * c[3 + k] + f[2] * c[6 + k]);
  }

  // Atoms of the cell, those on its faces repeated on the opposite face, bonds and cell edges.
  build() {
    const { z, frac } = this.crystal, n = this.repeat, faces = z.length * n ** 3 <= 300;
    const middle = this.position([n / 2, n / 2, n / 2]);
    const centred = (f) => this.position(f).map((x, k) => x - middle[k]);
    this.atoms = [];
    for (let i = 0; i < z.length; i++) {
      const images = [0, 1, 2].map((k) => {
        const f = frac[3 * i + k], inside = f - Math.floor(f + 1e-4);
        const copies = Array.from({ length: n }, (_, m) => inside + m);
        if (faces && Math.abs(inside) < 0.01) copies.push(inside + n);
        return copies;
      });
      for (const x of images[0])
        for (const y of images[1])
          for (const w of images[2]) this.atoms.push({ at: centred([x, y, w]), z: z[i] });
    }
    this.bonds = [];
    if (this.atoms.length <= 1500)
      for (let i = 0; i < this.atoms.length; i++)
        for (let j = 0; j < i; j++) {
          const a = this.atoms[i], b = this.atoms[j];
          const reach = 1.15 * (this.elements[a.z][2] + this.elements[b.z][2]);
          const d = Math.hypot(a.at[0] - b.at[0], a.at[1] - b.at[1], a.at[2] - b.at[2]);
          if (d > 0.3 && d < reach) this.bonds.push([a, b]);
        }
    this.edges = [];
    for (let k = 0; k < 3; k++)
      for (const u of [0, 1])
        for (const v of [0, 1]) {
          const start = [0, 0, 0], end = [0, 0, 0];
          [start[(k + 1) % 3], start[(k + 2) % 3]] = [u * n, v * n];
          [end[k], end[(k + 1) % 3], end[(k + 2) % 3]] = [n, u * n, v * n];
          this.edges.push([centred(start), centred(end)]);
        }
    const far = [...this.edges.flat(), ...this.atoms.map((a) => a.at)];
    this.radius = 0.9 + Math.max(...far.map((p) => Math.hypot(...p)));
  }

  // Depth-sorted back to front; what is further away fades towards the background.
  draw() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas;
    const width = box.clientWidth || 220, height = box.clientHeight || 220;
    box.width = width * ratio;
    box.height = height * ratio;
    const pen = box.getContext("2d");
    pen.scale(ratio, ratio);
    const scale = (this.zoom * Math.min(width, height)) / (2 * this.radius), m = this.turn;
    const project = (p) => {
      const depth = m[6] * p[0] + m[7] * p[1] + m[8] * p[2];
      const near = 1 / (1 - depth / (7 * this.radius));
      const x = m[0] * p[0] + m[1] * p[1] + m[2] * p[2], y = m[3] * p[0] + m[4] * p[1] + m[5] * p[2];
      return { x: width / 2 + scale * near * x, y: height / 2 - scale * near * y, depth, near };
    };
    const haze = (depth) => Math.min(1, Math.max(0.45, 0.78 + (0.4 * depth) / this.radius));
    const parts = [];
    const line = (from, to, pieces, width, colour, shade) => {
      for (let k = 0; k < pieces; k++) {
        const ends = [k / pieces, (k + 1) / pieces].map((t) => project(from.map((a, i) => a + t * (to[i] - a))));
        const depth = (ends[0].depth + ends[1].depth) / 2;
        parts.push({ depth: depth - 0.05, paint: () => this.stroke(pen, ends, width, colour, haze(depth), shade) });
      }
    };
    for (const [a, b] of this.edges) line(a, b, 6, 1.1, "#7b8794", false);
    for (const [a, b] of this.bonds) {
      const middle = a.at.map((x, k) => (x + b.at[k]) / 2);
      const stick = Math.max(1.5, 0.24 * scale);
      line(a.at, middle, 2, stick, this.elements[a.z][1], true);
      line(b.at, middle, 2, stick, this.elements[b.z][1], true);
    }
    for (const atom of this.atoms) {
      const p = project(atom.at), [, colour, covalent] = this.elements[atom.z];
      const size = scale * p.near * (0.18 + 0.26 * covalent);
      parts.push({ depth: p.depth, paint: () => this.ball(pen, p, size, colour, haze(p.depth)) });
    }
    parts.sort((a, b) => a.depth - b.depth);
    for (const part of parts) part.paint();
  }

  stroke(pen, [a, b], width, colour, opacity, shade) {
    pen.globalAlpha = 1;
    pen.lineCap = "round";
    pen.strokeStyle = CrystalView.mix(colour, "#ffffff", 1 - opacity);
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(a.x, a.y);
    pen.lineTo(b.x, b.y);
    pen.stroke();
    if (!shade || width < 4) return;
    pen.globalAlpha = 0.35;
    pen.strokeStyle = "#ffffff";
    pen.lineWidth = width / 3;
    pen.stroke();
    pen.globalAlpha = 1;
  }

  ball(pen, p, size, colour, opacity) {
    const base = CrystalView.mix(colour, "#ffffff", 1 - opacity);
    const light = pen.createRadialGradient(p.x - 0.35 * size, p.y - 0.4 * size, 0.05 * size, p.x, p.y, size);
    light.addColorStop(0, CrystalView.mix(base, "#ffffff", 0.75));
    light.addColorStop(0.45, base);
    light.addColorStop(1, CrystalView.mix(base, "#10151c", 0.45));
    pen.fillStyle = light;
    pen.beginPath();
    pen.arc(p.x, p.y, size, 0, 2 * Math.PI);
    pen.fill();
  }

  static mix(one, other, share) {
    const parts = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
    const [a, b] = [parts(one), parts(other)];
    return "#" + a.map((x, k) => Math.round(x + share * (b[k] - x)).toString(16).padStart(2, "0")).join("");
  }

  // Drag turns, the wheel zooms, a double click puts everything back; arrow keys turn too.
  interactive() {
    const view = this, box = this.canvas;
    let last = null;
    const turn = (dx, dy) => {
      const spin = [Math.cos(dx), 0, Math.sin(dx), 0, 1, 0, -Math.sin(dx), 0, Math.cos(dx)];
      const tilt = [1, 0, 0, 0, Math.cos(dy), -Math.sin(dy), 0, Math.sin(dy), Math.cos(dy)];
      view.turn = CrystalView.product(CrystalView.product(tilt, spin), view.turn);
      view.draw();
    };
    box.addEventListener("pointerdown", (e) => {
      last = [e.clientX, e.clientY];
      box.setPointerCapture(e.pointerId);
    });
    box.addEventListener("pointermove", (e) => {
      if (!last) return;
      turn((e.clientX - last[0]) / 120, (e.clientY - last[1]) / 120);
      last = [e.clientX, e.clientY];
    });
    box.addEventListener("pointerup", () => (last = null));
    box.addEventListener("pointercancel", () => (last = null));
    box.addEventListener("wheel", (e) => {
      e.preventDefault();
      view.zoom = Math.min(6, Math.max(0.4, view.zoom * Math.exp(-e.deltaY / 600)));
      view.draw();
    }, { passive: false });
    box.addEventListener("dblclick", () => {
      view.zoom = 1;
      view.turn = CrystalView.rotation(-1.25, 0.45);
      view.draw();
    });
    box.tabIndex = 0;
    box.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[e.key];
      if (!step) return;
      e.preventDefault();
      turn(...step);
    });
    return this;
  }
}
