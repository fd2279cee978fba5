"""What is predicted: names, units, and how a label is turned into what a network learns."""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

Half = Literal["all", "first", "second"]


@dataclass(frozen=True)
class Target:
    """A number that a crystal has.

    Attributes:
        unit: of the label and of every prediction.
        log: learned as log10: positive, over several decades.
        gated: zero for a large share of all crystals (metals have no gap): a classifier decides between zero
            and a regression that has seen the others only.
        data: where its labels are: mp_20, or the folder and file below the data folder.
    """

    unit: str
    log: bool = False
    gated: bool = False
    data: str = ""


_AFLOW = "aflow_thermomech/aflow"

TARGETS = {
    "formation_energy": Target("eV/atom", data="mp_20"),
    "e_above_hull": Target("eV/atom", gated=True, data="mp_20"),
    "band_gap": Target("eV", gated=True, data="mp_20"),
    "bulk_modulus": Target("GPa", log=True, data=_AFLOW),
    "shear_modulus": Target("GPa", log=True, data=_AFLOW),
    "debye_temperature": Target("K", log=True, data=_AFLOW),
}
"""Properties that models are shipped for; any other numeric column can be learned by ``train_property``."""


def unknown_name(name: str, known: Sequence[str], what: str) -> ValueError:
    """The error for a name that is not known, with the nearest that is."""
    near = difflib.get_close_matches(name.lower(), known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"expected {what} among {', '.join(known)}: got {name!r}{hint}")


def half_of(formulas: Sequence[str], half: Half) -> Bool[np.ndarray, "crystals"]:
    """Which crystals are in one of two halves, by a hash of the formula: polymorphs stay together.

    Two families trained on different halves share no compound, so one can judge what the other has guided.
    """
    if half == "all":
        return np.ones(len(formulas), bool)
    parity = [hashlib.sha256(formula.encode()).digest()[0] % 2 for formula in formulas]
    return np.array(parity) == (0 if half == "first" else 1)


def working(labels: Float[Tensor, "crystals targets"], log: Sequence[bool]) -> Tensor:
    """Labels as they are learned: log10 where asked; what has no logarithm is missing (NaN)."""
    out = labels.clone()
    for column, is_log in enumerate(log):
        if is_log:
            values = labels[:, column]
            out[:, column] = values.where(values > 0, float("nan")).log10()
    return out
