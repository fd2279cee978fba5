"""Classes on the command line: what is drawn for each, and what it is not to be combined with."""

import pytest

from autoperi.data.files import read_crystals
from evaluation.report.classes import CLASSES
from tests.autoperi.shell import command


@pytest.mark.parametrize(
    ("name", "n", "most", "elements"),
    [("perovskite", 20, 5, None), ("carbon", 20, 24, {6}), ("zeolite", 2, 300, {8, 14})],
)
def test_a_class_is_drawn_by_shipped_weights(tmp_path, name, n, most, elements):
    """Nine in ten are what its rules say."""
    asked = ("--class", name, "--n", n, "--seed", 0, "--workers", 1, "--out", tmp_path)
    assert command("sample", *asked) == 0
    crystals = read_crystals(tmp_path)
    assert len(crystals) == n
    assert {crystal.provenance["checkpoint"] for crystal in crystals} == {name}
    assert max(crystal.n_atoms for crystal in crystals) <= most
    if elements:
        assert {z for crystal in crystals for z in crystal.species.tolist()} == elements
    assert sum(CLASSES[name].judge(c.to_structure()).valid for c in crystals) >= 0.9 * n


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("glass", (), "expected a class among carbon, perovskite, zeolite: got 'glass'"),
        ("carbon", ("--checkpoint", "mine"), "expected --class or --checkpoint: got both"),
        ("carbon", ("--formula", "BaTiO3"), "class 'carbon' has: no training crystal holds O, Ti, Ba"),
        ("carbon", ("--exclude", "C"), "no training crystal holds an element that may appear"),
        ("carbon", ("--band-gap", "1"), "expected conditions of no kind"),
        ("perovskite", ("--atoms", "10", "20"), "no training crystal has 10 to 20 atoms"),
        ("perovskite", ("--space-group", "225"), "no training crystal has a space group among [225]"),
        ("zeolite", ("--elements", "Si", "O"), "expected no elements and no formula"),
        (
            "zeolite",
            ("--atoms", "1998", "2001"),
            "666 to 667 atoms in its primitive cell, the largest 96 (of",
        ),
        ("zeolite", ("--physics", "0.01"), "expected neither physics nor several tries"),
        ("zeolite", ("--log-likelihood",), "expected a checkpoint that draws every atom"),
        ("zeolite", ("--stability", "0.5"), "the checkpoint has no critic of stability"),
    ],
)
def test_what_a_class_is_not_asked_for(tmp_path, capsys, name, options, told):
    """One line, status 2, nothing written."""
    asked = ("--class", name, "--n", 2, "--workers", 1, *options, "--out", tmp_path / "out")
    assert command("sample", *asked) == 2
    complaint = " ".join(capsys.readouterr().err.split())
    assert told in complaint
    assert not list((tmp_path / "out").glob("*.extxyz"))
