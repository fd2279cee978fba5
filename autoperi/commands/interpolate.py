"""The interpolate command: the way from one crystal to another."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Generating, asked


@dataclass(frozen=True)
class Interpolate:
    """Lead one crystal to another in the latent space; the symmetry that both have holds on all of the way.

    Within one gene, or the gene of the crystal of lower symmetry; else under the operations that both have,
    however few. Primitive cells must have the same number of atoms. Where elements differ, the decoder reads
    those of the points between from the latents.

    Examples:
        autoperi interpolate KNbO3.cif NaTaO3.cif --out between
        autoperi interpolate rocksalt.cif wurtzite.cif --steps 21 --property band_gap --out path

    Attributes:
        path: files of one crystal each: CIF, POSCAR, extxyz, JSON.
        out: folder for crystals.extxyz, cif/, crystals.csv, index.html, path.csv, path.png and run.json.
        steps: crystals on the way, both ends among them.
        property: what the shipped models predict of each.
    """

    path: Annotated[tuple[Path, Path], tyro.conf.Positional, tyro.conf.arg(metavar="A B")]
    out: Path
    steps: int = 7
    property: tuple[str, ...] = ("formation_energy", "band_gap")
    advanced: Annotated[Generating, tyro.conf.OmitArgPrefixes] = field(default_factory=Generating)

    def run(self) -> int:
        """Read, align, walk, write; exit status 1 if a point has no group because atoms meet there."""
        from autoperi.data.files import save_crystals
        from autoperi.data.run_folder import content_hash, run_folder
        from autoperi.discovery.seeded import path, path_picture, path_table, read_seed
        from autoperi.generator import load
        from autoperi.generator.frameworks import refuse_nets
        from property_models.physics.descent import energies
        from property_models.uses.screen import Predictor

        first, second = map(read_seed, self.path)
        predicted = Predictor(self.property) if self.property else list
        generator = load(self.advanced.checkpoint, self.advanced.device)
        refuse_nets(generator.config)
        content = {"checkpoint": generator.sha256, "to": content_hash(self.path[1])}
        with run_folder(self.out, asked(self, **content), self.path[0]) as folder:
            found, way = path(generator, first, second, self.steps)
            points = predicted(found)
            table = path_table(points, energies)
            table.to_csv(folder.new / "path.csv", index=False)
            shown = {"energy": "energy, eV/atom", "contact": "shortest contact", "volume": "Å³/atom"}
            shown |= {f"predicted_{name}": name for name in self.property}
            path_picture(table, shown).savefig(folder.new / "path.png", dpi=130)
            written = save_crystals(points, folder.new)
            problems = {p.id: str(p.provenance["problem"]) for p in points if "problem" in p.provenance}
            failures = [(name, "symmetry", words) for name, words in problems.items()]
            ends = {"from": first.id, "to": second.id, "common_group": way.group}
            folder.finish({**ends, "failures": failures, **written})
        energy = table["energy"]
        above = f"{energy.max() - max(energy.iloc[0], energy.iloc[-1]):.3f} eV/atom at most"
        if energy.hasnans:
            above = "not known: an element beyond Pu"
        rows = {
            "from": f"{first.formula}, gene {first.gene}",
            "to": f"{second.formula}, gene {second.gene}",
            "group kept": f"{way.group} ({way.alignment.operations} operations of the primitive cell)",
            "atoms move": f"{table['distance'].max():.2f} Å (root mean square)",
            "shortest contact": f"{table['contact'].min():.2f} of the sum of covalent radii",
            "energy above the higher end": above,
            "formulas": ", ".join(dict.fromkeys(table["formula"])),
        }
        console.summary(f"{written['crystals']} crystals in {self.out}", rows)
        return console.left_out(failures)
