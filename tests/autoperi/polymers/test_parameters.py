"""Parameters: every term once, the unit neutral, and what MMFF94 does not know refused."""

import numpy as np
import pytest

from autoperi.polymers.parameters import oligomer, parameters
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

pytest.importorskip("rdkit", reason="rdkit is not installed")


def test_every_term_of_a_unit_once():
    """CH2: three bonds, of which one leads on; six angles; nine torsions about that bond."""
    field = parameters(RepeatUnit.of("*CC*"))
    assert [len(index) for index, _ in (field.bonds, field.angles, field.torsions, field.planes)] == [
        3,
        6,
        9,
        0,
    ]
    assert all((index.min(axis=1) < field.n_atoms).all() for index, _ in (field.bonds, field.angles))
    assert np.bincount(field.near[field.span, 0]).tolist() == [1, 2]  # itself, two hydrogens
    assert field.near[field.span + 1, 0, 0] == 1
    assert field.near[field.span + 4, 0, 0] == 4


@pytest.mark.parametrize("smiles", ["*CC(F)(F)*", "*Sc1ccc(cc1)*", "*NCCCCCC(=O)*", "*[Si](C)(C)O*"])
def test_units_are_neutral_and_do_not_feel_the_ends(smiles):
    """The middle of a longer chain has the same charges."""
    from rdkit.Chem import rdForceFieldHelpers

    unit = RepeatUnit.of(smiles)
    field = parameters(unit)
    assert field.charges.sum() == pytest.approx(0, abs=1e-9)
    chain, table = oligomer(unit, 9)
    longer = rdForceFieldHelpers.MMFFGetMoleculeProperties(chain)
    assert field.charges == pytest.approx([longer.GetMMFFPartialCharge(int(i)) for i in table[4]])


@pytest.mark.parametrize("smiles", ["*P(Cl)(Cl)=N*", "*C[Si](=O)*"])
def test_surroundings_that_mmff94_does_not_know_are_refused(smiles):
    with pytest.raises(PolymerError, match="MMFF94 knows"):
        parameters(RepeatUnit.of(smiles))
