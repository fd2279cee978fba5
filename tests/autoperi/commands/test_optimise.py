import json

import numpy as np
import pandas as pd
import pytest

from autoperi.data.files import read_crystals
from evaluation.facts.symmetry import space_group
from tests.autoperi.shell import command
from tests.browser import shown
from tests.prototypes import prototype


@pytest.fixture(scope="module")
def arsenide(tmp_path_factory):
    """A CIF file."""
    file = tmp_path_factory.mktemp("seed") / "GaAs.cif"
    prototype("GaAs").to(filename=str(file))
    return file


def test_optimise_reaches_a_gap_and_shows_the_scan_beside_it(tmp_path, capsys, arsenide):
    """Crystals of the gene, the likeliest first; the same command again gives the same."""
    out = tmp_path / "out"
    words = ("optimise", arsenide, "--property", "band_gap", "--to", 2.5, "--substitutions", "--out", out)
    assert command(*words) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "2.5 ± 0.25" in said
    assert "substitution scan" in said
    walk, scan = pd.read_csv(out / "walk.csv"), pd.read_csv(out / "scan.csv")
    assert walk["reached"].iloc[0] == 1
    assert abs(walk["predicted_band_gap"].iloc[0] - 2.5) <= 0.25
    likely = walk["chance"] * walk["foretold"]
    assert (np.diff(likely[walk["reached"] == 1]) <= 0).all()
    assert len(scan) > 100
    crystals = read_crystals(out)
    assert {space_group(c.to_structure(), 1e-3) for c in crystals} == {216}
    assert (out / "walk.png").stat().st_size > 5000
    assert set(shown(out / "index.html")) <= {c.id for c in crystals}
    assert json.loads((out / "run.json").read_text())["reached"] == (walk["reached"] == 1).sum()
    before = (out / "walk.csv").read_bytes()
    assert command(*words) == 0
    assert (out / "walk.csv").read_bytes() == before


def test_what_is_not_reached_says_how_far_and_ends_with_status_3(tmp_path, capsys, arsenide):
    """The nearest is written."""
    words = (
        "optimise",
        arsenide,
        "--property",
        "band_gap",
        "--to",
        8,
        "--steps",
        5,
        "--out",
        tmp_path / "out",
    )
    assert command(*words) == 3
    assert "not reached: the nearest is" in capsys.readouterr().err
    assert [c.formula for c in read_crystals(tmp_path / "out")] == ["GaAs"]


def test_what_cannot_be_asked_is_one_line_and_status_2(tmp_path, capsys, arsenide):
    """Nothing is left behind."""
    for words, said in (
        (("--property", "bandgap", "--to", 2), "did you mean 'band_gap'"),
        (("--property", "band_gap", "--to", 0), "a tolerance above 0"),
        (("--property", "band_gap", "--to", 1, "--steps", -1), "no steps or more"),
    ):
        assert command("optimise", arsenide, *words, "--out", tmp_path / "out") == 2
        told = capsys.readouterr().err
        assert said in " ".join(told.split())
        assert told.count("\n") == 1
        assert not (tmp_path / "out").exists()
