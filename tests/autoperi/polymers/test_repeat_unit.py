"""Repeat units: what is none is refused in words, what repeats is cut down, mirror images are known."""

import pytest

from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

pytest.importorskip("rdkit", reason="rdkit is not installed")


@pytest.mark.parametrize(
    ("smiles", "told"),
    [
        ("CC", "with 0 of them"),
        ("*CC", "with 1 of them"),
        ("*CC(*)*", "with 3 of them"),
        ("*CC(*", "RDKit cannot read"),
        ("", "RDKit cannot read"),
        ("*C[N+](C)(C)C*", r"no charged atoms: got N"),
        ("*CC[O-].*", "of 2"),
        ("*C[Fe]C*", "got Fe"),
        ("*C[CH]*", "no radicals"),
        ("*=CC=*", "single bond"),
        ("**", "single bond"),
        ("[*H]C*", "single bond"),
        ("*C([2H])*", "no isotopes: got 2H"),
        (f"*{'C' * 67}*", "200 atoms or fewer: got 201"),
    ],
)
def test_what_is_no_repeat_unit_is_refused_in_words(smiles, told):
    with pytest.raises(PolymerError, match=told):
        RepeatUnit.of(smiles)


@pytest.mark.parametrize(
    ("smiles", "atoms"),
    [("*CC*", 3), ("*C(F)(F)C(F)(F)*", 3), ("*CC(C)CC(C)*", 9), ("*CC(C)C(C)C*", 18), ("*C=C*", 4)],
)
def test_the_shortest_part_that_repeats_is_taken(smiles, atoms):
    """Head to head is no repetition; a double bond is not cut."""
    assert RepeatUnit.of(smiles).n_atoms == atoms


@pytest.mark.parametrize(
    ("smiles", "chiral", "centres"),
    [
        ("*O[C@@H](C)C(=O)*", True, 1),
        ("*OC(C)C(=O)*", False, 1),
        ("*C[C@H](C)C[C@@H](C)*", False, 2),
        ("*CC(F)(F)*", False, 0),
    ],
)
def test_only_chains_that_differ_from_their_mirror_image_are_chiral(smiles, chiral, centres):
    """Lactic acid with its hand told; syndiotactic polypropylene is its own image, shifted."""
    unit = RepeatUnit.of(smiles)
    assert (unit.chiral, unit.centres) == (chiral, centres)


def test_a_double_bond_to_nitrogen_with_hydrogen_is_a_repeat_unit():
    """Its hydrogen says which way it points, though no SMILES writes it."""
    assert RepeatUnit.of("*CS(=N)C*").n_atoms == 9


def test_a_nitro_group_bears_no_charge():
    assert RepeatUnit.of("*CC([N+](=O)[O-])*").n_atoms == 8


def test_without_rdkit_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("autoperi.data.cache.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"rdkit.*autoperi-gnn\[polymers\]"):
        RepeatUnit.of("*CC*")
