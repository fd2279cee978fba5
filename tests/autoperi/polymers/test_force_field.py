"""The force field: RDKit's bonded terms, a 12-6 potential of far pairs, and what the cut-off leaves out."""

import numpy as np
import pytest
import torch

from autoperi.polymers.force_field import CUTOFF, Bonded, descended, far_energies, near_energies, tail
from autoperi.polymers.parameters import _Reader, oligomer, parameters
from autoperi.polymers.repeat_unit import RepeatUnit

pytest.importorskip("rdkit", reason="rdkit is not installed")

TERMS = ("Bond", "Angle", "StretchBend", "Oop", "Torsion", "VdW", "Ele")


def molecule():
    """With amide, ether, ring and branch: the whole of it, read as one unit without ends."""
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    mol, _ = oligomer(RepeatUnit.of("*Oc1ccc(cc1)C(=O)NCC(C)*"), 2)
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=1) == 0
    return mol, rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)


def rdkit_energy(mol, properties, terms):
    from rdkit.Chem import rdForceFieldHelpers

    for term in TERMS:
        getattr(properties, f"SetMMFF{term}Term")(term in terms)
    return rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties).CalcEnergy()


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("_stretched", ["Bond"]),
        ("_bent", ["Angle", "StretchBend"]),
        ("_out_of_plane", ["Oop"]),
        ("_turned", ["Torsion"]),
    ],
)
def test_bonded_terms_are_those_of_rdkit(name, terms):
    mol, properties = molecule()
    reader = _Reader(mol, np.arange(mol.GetNumAtoms())[None], properties, 0)
    kinds = (reader.bonds(), reader.angles(), reader.planes(), reader.torsions())
    bonded = Bonded(*((torch.from_numpy(i), torch.from_numpy(v)) for i, v in kinds))
    own = getattr(bonded, name)(torch.from_numpy(mol.GetConformer().GetPositions()))
    assert float(own) == pytest.approx(rdkit_energy(mol, properties, terms), rel=2e-4)


def test_pairs_three_bonds_apart_are_mmff94s():
    """The buffered 14-7 potential, and a quarter of the bare charges taken away."""
    d, q = torch.tensor([2.4], dtype=torch.float64), torch.tensor([-0.02], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    near = torch.tensor([3])
    own = near_energies(d, 3.0 * one, 0.05 * one, q, near)
    ratio = 3.0 / 2.4
    expected = 0.05 * (1.07 * ratio / (1 + 0.07 * ratio)) ** 7 * (1.12 * ratio**7 / (1 + 0.12 * ratio**7) - 2)
    assert float(own) == pytest.approx(expected + 0.25 * 332.0716 * 0.02 / 2.45)
    assert float(near_energies(d, one, one, q, torch.tensor([1]))) == pytest.approx(332.0716 * 0.02 / 2.45)


def test_far_pairs_are_lowest_at_their_distance_and_charges_end_smoothly():
    d = torch.tensor([3.4, 3.5, 3.6, CUTOFF], dtype=torch.float64, requires_grad=True)
    plain = far_energies(d.detach(), torch.tensor(3.5), torch.tensor(0.1), torch.tensor(0.0))
    assert plain.argmin() == 1
    assert float(plain[1]) == pytest.approx(-0.1)
    charged = far_energies(d - 0.05, torch.tensor(3.5), torch.tensor(0.0), torch.tensor(0.3))
    (slope,) = torch.autograd.grad(charged.sum(), d)
    assert float(charged[3].detach()) == pytest.approx(0, abs=1e-9)
    assert float(slope[3]) == pytest.approx(0, abs=1e-9)
    assert float(charged[0].detach()) > 0


def test_the_tail_is_what_a_longer_cut_off_would_add():
    """Attraction of evenly spread atoms from the cut-off on, by quadrature."""
    field = parameters(RepeatUnit.of("*CC*"))
    r, step = np.linspace(CUTOFF, 400, 400_000, retstep=True)
    shell = (4 * np.pi * r**2 * -2 / r**6).sum() * step
    summed = 0.5 * shell * (field.far_depth * field.far_radius**6).sum() / 25.0
    assert float(tail(field, torch.tensor(25.0))) == pytest.approx(summed, rel=1e-3)


def test_descent_finds_a_minimum():
    x, energy = descended(lambda x: ((x - 3.0) ** 2).sum() + 1, np.zeros(4), 50)
    assert x == pytest.approx([3.0] * 4, abs=1e-3)
    assert energy == pytest.approx(1)
