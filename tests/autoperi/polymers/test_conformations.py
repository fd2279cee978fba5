"""Conformations: units follow each other by a screw or a glide that carries neighbour to neighbour."""

import numpy as np
import pytest
import torch

from autoperi.polymers.conformations import Chain, conformations, repeated
from autoperi.polymers.repeat_unit import RepeatUnit

pytest.importorskip("rdkit", reason="rdkit is not installed")

UNIT = np.array([[0.6, 0.2, 0.1], [0.0, 1.1, 0.4]])


@pytest.mark.parametrize(
    ("turn", "glide", "units", "name"),
    [
        (2 * np.pi / 3, False, 3, "3/1"),
        (-2 * np.pi / 3, False, 3, "3/1"),
        (2 * np.pi * 7 / 15, False, 15, "15/7"),
        (np.pi, False, 2, "2/1"),
        (0.0, False, 1, "1/1"),
        (0.0, True, 2, "glide"),
    ],
)
def test_a_chain_repeats_after_its_units(turn, glide, units, name):
    chain = Chain(UNIT, 1.3, turn, glide, units)
    assert chain.name == name
    assert chain.period == pytest.approx(1.3 * units)
    rise, angle = torch.tensor([1.3, turn], dtype=torch.float64)
    after = repeated(torch.from_numpy(UNIT), rise, angle, glide, range(units, units + 1))[0]
    assert after.numpy() == pytest.approx(UNIT + np.array([0, 0, chain.period]), abs=1e-9)
    assert chain.positions().shape == (units, 2, 3)


def test_a_glide_reflects_and_a_screw_turns():
    x = Chain(UNIT, 1.0, 0.0, True, 2).positions()
    assert x[1] == pytest.approx(UNIT * [1, -1, 1] + [0, 0, 1])
    y = Chain(UNIT, 1.0, np.pi, False, 2).positions()
    assert y[1] == pytest.approx(UNIT * [-1, -1, 1] + [0, 0, 1])


@pytest.mark.parametrize(
    ("smiles", "bond"), [("*CC(F)(F)*", 1.52), ("*OCC(C)*", 1.42), ("*Sc1ccc(cc1)*", 1.8)]
)
def test_a_unit_is_bonded_to_the_next(smiles, bond):
    """The last atom of the backbone to the first of the next unit, whatever the torsions, not yet relaxed."""
    unit = RepeatUnit.of(smiles)
    found = list(conformations(unit))
    assert len(found) >= 3
    assert {chain.glide for chain in found} == ({False} if unit.centres else {False, True})
    kept = [atom.GetIdx() for atom in unit.mol.GetAtoms() if atom.GetAtomicNum()]
    head, tail = kept.index(unit.backbone[0]), kept.index(unit.backbone[-1])
    lengths = []
    for chain in found:
        x = repeated(
            torch.from_numpy(chain.unit), *torch.tensor([chain.rise, chain.turn]), chain.glide, range(2)
        )
        lengths.append(float((x[1, head] - x[0, tail]).norm()))
    assert min(abs(length - bond) for length in lengths) < 0.1
    assert max(lengths) < 2.5
