"""The edit command: part of a crystal kept, the rest drawn anew."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Generating, asked


@dataclass(frozen=True)
class Parts:
    """What stays as it is. By default everything is drawn anew that is not kept, or kept that is not redrawn.

    Attributes:
        keep_species: keep all elements.
        keep_sites: numbers of sites that keep element and place.
        keep_cell: keep the cell.
        redraw: what is drawn anew.
    """

    keep_species: bool = False
    keep_sites: tuple[int, ...] = ()
    keep_cell: bool = False
    redraw: tuple[Literal["species", "sites", "cell"], ...] = ()


@dataclass(frozen=True)
class Edit:
    """Keep part of a crystal and draw the rest anew; the gene (space group, Wyckoff letters) stays.

    Sites are numbered as `autoperi encode` lists them. A kept site keeps its element and, as fractional
    coordinates, its place: in a cell that is drawn anew too.

    Examples:
        autoperi edit BaTiO3.cif --redraw species --n 20 --out doped
        autoperi edit quartz.cif --keep-species --keep-cell --out places
        autoperi edit spinel.cif --keep-sites 0 1 --out other_anions

    Attributes:
        path: a file of one crystal: CIF, POSCAR, extxyz, JSON.
        out: folder for crystals.extxyz, cif/, crystals.csv, index.html, edits.csv and run.json.
        n: how many crystals.
        seed: of all randomness; crystal i depends on (seed, i).
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CRYSTAL")]
    out: Path
    n: int = 10
    seed: int = 0
    parts: Annotated[Parts, tyro.conf.OmitArgPrefixes] = field(default_factory=Parts)
    advanced: Annotated[Generating, tyro.conf.OmitArgPrefixes] = field(default_factory=Generating)

    def run(self) -> int:
        """Read, draw, write; exit status 1 if fewer crystals than asked for are found."""
        from autoperi.data.files import save_crystals
        from autoperi.data.run_folder import run_folder
        from autoperi.discovery.seeded import Kept, edit_table, edited, read_seed
        from autoperi.generator import load
        from autoperi.generator.frameworks import refuse_nets
        from property_models.physics.descent import energies

        began = time.perf_counter()
        crystal = read_seed(self.path)
        kept = Kept.of(
            crystal,
            species=self.parts.keep_species,
            sites=self.parts.keep_sites,
            cell=self.parts.keep_cell,
            redraw=self.parts.redraw,
        )
        generator = load(self.advanced.checkpoint, self.advanced.device)
        refuse_nets(generator.config)
        with run_folder(self.out, asked(self, checkpoint=generator.sha256), self.path) as folder:
            crystals = edited(generator, crystal, kept, self.n, self.seed)
            table = edit_table(crystal, crystals, kept, energies)
            table.to_csv(folder.new / "edits.csv", index=False)
            written = save_crystals(crystals, folder.new)
            folder.finish({"seed": self.seed, "edited": crystal.id, "kept": str(kept), **written})
        rows = {
            "edited": f"{crystal.formula}, gene {crystal.gene}, symmetrised at "
            f"{crystal.provenance['symprec']:g} Å",
            "kept": str(kept),
            "deviation of what is kept": f"{table['deviation'].max():.1e} Å at most",
            "formulas": str(len({c.formula for c in crystals})),
            "first": ", ".join(c.formula for c in crystals[:5]),
            "seconds": f"{time.perf_counter() - began:.1f}",
        }
        console.summary(f"{written['crystals']} crystals in {self.out}", rows)
        return 0 if written["crystals"] == self.n else 1
