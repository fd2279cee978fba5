"""A handful of figures cheap enough to be taken while a generator trains."""

from collections.abc import Collection, Sequence

from pymatgen.core import Structure

from evaluation.validity import smact_valid, structural_validity


def training_figures(structures: Sequence[Structure], known_formulas: Collection[str]) -> dict[str, float]:
    """Shares of a small sample: structural validity, SMACT (`smact14`), new formulas, all at once.

    Definitions are those of `evaluation.validity`; a formula is new when no training crystal has it.
    ``n_el`` is the mean number of elements per crystal.
    """
    structural = [structural_validity(s) for s in structures]
    charges = [smact_valid(s.composition, "smact14") for s in structures]
    new = [s.composition.reduced_formula not in known_formulas for s in structures]
    n = len(structures)
    both = [a and b and c for a, b, c in zip(structural, charges, new, strict=True)]
    return {
        "structural": sum(structural) / n,
        "smact14": sum(charges) / n,
        "new_formula": sum(new) / n,
        "valid_and_new": sum(both) / n,
        "n_el": sum(len(s.composition) for s in structures) / n,
    }
