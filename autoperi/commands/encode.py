"""The encode command: structures of a file to chemical latents in a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from autoperi.commands import console
from autoperi.commands.arguments import Computing, asked

if TYPE_CHECKING:
    import pandas as pd

    from autoperi.crystals.crystal import Crystal
    from autoperi.networks.autoencoder import Latents


@dataclass(frozen=True)
class Encode:
    """Encode structures into chemical latents, one row per symmetry-distinct site.

    Examples:
        autoperi encode my_cifs/ --out latents

    Attributes:
        path: anything readable: CIF, folder or zip of CIFs, CSV with a CIF column, extxyz, POSCAR, JSON.
        out: folder for latents.csv (site by site) and run.json.
        checkpoint: a shipped checkpoint or a checkpoint folder; of zeolite the tetrahedral sites of SiO2
            frameworks are encoded.
    """

    path: Annotated[Path, tyro.conf.Positional]
    out: Path
    checkpoint: str = "mp_20"
    advanced: Annotated[Computing, tyro.conf.OmitArgPrefixes] = field(default_factory=Computing)

    def run(self) -> int:
        """Read, symmetrise, encode; exit status 1 if any structure was left out."""
        from autoperi.data.dataset import load_dataset
        from autoperi.data.names import without_formulas
        from autoperi.data.run_folder import run_folder
        from autoperi.generator import load

        generator = load(self.checkpoint, self.advanced.device)
        with run_folder(self.out, asked(self, checkpoint=generator.sha256), self.path) as folder:
            dataset = generator.seen(load_dataset(self.path, None, workers=self.advanced.workers))
            crystals = list(dataset)
            table = latents_table(crystals, generator.flow.encode(crystals))
            without_formulas(table).to_csv(folder.new / "latents.csv", index=False)
            about = {"source": str(self.path), "failures": [list(row) for row in dataset.failures]}
            folder.finish({**about, "checkpoint": {"name": generator.name, "sha256": generator.sha256}})
        counts = {"crystals": len(crystals), "sites": len(table), "left out": len(dataset.failures)}
        rows = {name: str(n) for name, n in counts.items()}
        console.summary(f"latents in {self.out / 'latents.csv'}", rows)
        return console.left_out(dataset.failures)


def latents_table(crystals: "Sequence[Crystal]", latents: "Sequence[Latents]") -> "pd.DataFrame":
    """One row per site: crystal, site, element, letter, then mean and standard deviation of q(h)."""
    import pandas as pd
    from ase.data import chemical_symbols

    rows = []
    for crystal, q in zip(crystals, latents, strict=True):
        channels = zip(q.mean.tolist(), q.log_std.exp().tolist(), strict=True)
        for site, (mean, std) in enumerate(channels):
            names = {"id": crystal.id, "formula": crystal.formula, "gene": crystal.gene, "site": site}
            names |= {"element": chemical_symbols[crystal.species[site]], "letter": crystal.letters[site]}
            values = {f"mean_{k}": x for k, x in enumerate(mean)} | {f"std_{k}": x for k, x in enumerate(std)}
            rows.append({**names, **values})
    return pd.DataFrame(rows)
