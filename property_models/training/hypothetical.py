"""Crystals that need not hold, with what they relax to: what models of energies and gaps know failure from.

MP-20 holds crystals on the hull or just above it. A model that has seen no others takes everything for nearly
stable, so the even rows of WBM (Wang, Botti and Marques, doi:10.1038/s41524-020-00481-6: element
substitutions, labels by density functional theory) stand beside it in training, for band gaps too. Energies
are learned from draws of the generator as well. A draw is shown as drawn and as relaxed, with the energy
after relaxation both times: raw geometry is to be read as what it will become. Networks that correct the
shipped potential see it as drawn alone: of the relaxed one the potential has told its teacher's energy
already.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.hull import Hull
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.data.files import crystal_of_record
from property_models.training.train_property import Splits, tenth

Potential = Literal["chgnet", "sevennet"]
Form = Literal["crystal", "relaxed"]
"""A draw as drawn, or as relaxed, by its name in the files."""
WBM = "wbm/wbm_val_10k"
_HIGHEST = 5.0
"""eV/atom: a potential that says more of a relaxed crystal has met atoms on top of each other."""


def with_hypothetical(
    splits: Splits,
    wbm: Path,
    draws: Path | None = None,
    potential: Potential = "chgnet",
    shown: Sequence[Form] = ("crystal", "relaxed"),
) -> Splits:
    """MP-20 with others beside it: nine tenths of their compounds to train, one tenth to calibrate.

    Intervals of energies are to hold for either, so that with draws both count the same in val: the rows of
    the fewer are repeated. Draws of a compound of val or test are left out, so that no energy of theirs is
    seen in training.

    Args:
        splits: of MP-20, with the labels that are learned.
        wbm: its table; rows of odd number are never read as training data.
        draws: folder of ``labels-*.jsonl`` (`scripts/shipped/label_draws.py`), for formation energies.
        potential: whose energies of the draws are learned.
        shown: forms of the draws.
    """
    parts = [wbm_rows(wbm, "even")]
    if draws:
        seen = {crystal.formula for part in (splits.val, splits.test) for crystal in part}
        drawn = [c for c in labelled_draws(draws, potential, shown) if c.formula not in seen]
        parts.append(CrystalDataset.from_crystals(drawn, f"{potential} on draws"))
    train, held_out = [splits.train], []
    for part in parts:
        held = np.array([tenth(crystal.formula) == 8 for crystal in part])
        train.append(part.select(np.flatnonzero(~held)))
        held_out.append(part.select(np.flatnonzero(held)))
    kinds = [splits.val, CrystalDataset.joined(held_out)]
    if draws:
        most = max(map(len, kinds))
        kinds = [kind.select(np.resize(np.arange(len(kind)), most)) for kind in kinds]
    return replace(splits, train=CrystalDataset.joined(train), val=CrystalDataset.joined(kinds))


def hull_of(phases: CrystalDataset) -> Hull:
    """The hull of a data set's formation energies."""
    return Hull(phases.compositions(), phases.labels["formation_energy"])


def above_hull(dataset: CrystalDataset, hull: Hull) -> CrystalDataset:
    """The same with ``e_above_hull`` of its formation energies, eV/atom; negative below the hull."""
    energies = dataset.labels["formation_energy"]
    pairs = zip(dataset.compositions(), energies, strict=True)
    values = np.array([hull.above(composition, energy) for composition, energy in pairs])
    return replace(dataset, labels={**dataset.labels, "e_above_hull": values})


def wbm_rows(table: Path, rows: Literal["even", "odd"]) -> CrystalDataset:
    """The half of WBM that teaches (even) or tests (odd), by the number of the row."""
    dataset = load_dataset(table, None)
    mine = np.array([int(name) % 2 for name in dataset.ids]) == (rows == "odd")
    return replace(dataset.select(np.flatnonzero(mine)), name=f"wbm ({rows} rows)")


def labelled_draws(
    folder: Path, potential: Potential, shown: Sequence[Form] = ("crystal", "relaxed")
) -> list[Crystal]:
    """Draws as drawn and as relaxed, with the formation energy after relaxation; eV/atom.

    Raises:
        ValueError: a folder without labels, or labels without the energies of this potential.
    """
    files = sorted(folder.glob("labels-*.jsonl"))
    if not files:
        raise ValueError(
            f"expected labels-*.jsonl in {folder}: found none; scripts/shipped/label_draws.py writes them"
        )
    column = "formation_energy" if potential == "chgnet" else f"formation_energy_{potential}"
    crystals = []
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            label = json.loads(line)
            if column not in label:
                raise ValueError(f"expected {column} in line {number} of {file}: got {', '.join(label)}")
            if label[column] is None or label[column] > _HIGHEST:
                continue
            for kind in shown:
                if label[kind]:
                    crystal = crystal_of_record(label[kind])
                    name = f"{file.stem}-{crystal.id}-{kind}"
                    crystals.append(replace(crystal, id=name, properties={"formation_energy": label[column]}))
    return crystals
