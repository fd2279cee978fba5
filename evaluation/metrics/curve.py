"""Validity, novelty and distances of a small sample, for the curve of a training."""

from collections.abc import Collection, Sequence

from pymatgen.core import Composition, Structure

from autoperi.crystals.crystal import any_element_in_formulas
from evaluation.metrics.validity import smact_valid, structural_validity


@any_element_in_formulas()
def training_figures(
    crystals: Sequence[Structure] | Sequence[Composition], known_formulas: Collection[str]
) -> dict[str, float]:
    """Shares of a small sample: structural validity, SMACT (`smact14`), new formulas, all at once.

    Definitions are those of `evaluation.metrics.validity`; a formula is new when no training crystal has it.
    ``n_el`` is the mean number of elements per crystal. Of compositions alone, ``structural`` is left out.
    """
    formulas = [c.composition if isinstance(c, Structure) else c for c in crystals]
    shares = {
        "structural": [structural_validity(c) for c in crystals if isinstance(c, Structure)],
        "smact14": [smact_valid(formula, "smact14") for formula in formulas],
        "new_formula": [formula.reduced_formula not in known_formulas for formula in formulas],
    }
    shares = {name: share for name, share in shares.items() if share}
    return {
        **{name: sum(share) / len(share) for name, share in shares.items()},
        "valid_and_new": sum(map(all, zip(*shares.values(), strict=True))) / len(formulas),
        "n_el": sum(map(len, formulas)) / len(formulas),
    }
