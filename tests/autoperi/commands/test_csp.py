import json
from pathlib import Path

import pandas as pd
import pytest
from pymatgen.core import Structure

from autoperi.data.files import read_crystals
from autoperi.discovery import prediction
from evaluation.facts.symmetry import space_group
from tests.autoperi.shell import command
from tests.browser import shown


def test_csp_writes_ranked_crystals_and_goes_on(tmp_path, capsys):
    """CIFs with their groups, table, gallery, record; the same command again computes nothing anew."""
    out = tmp_path / "predicted"
    arguments = ("csp", "KMgF3", "NaBr", "--candidates", 2, "--out", out)
    assert command(*arguments) == 0
    said = capsys.readouterr().out
    assert "2 predicted, 0 left out" in said
    assert max(len(line.rstrip()) for line in said.splitlines()) <= 100
    table = pd.read_csv(out / "candidates.csv")
    assert table.groupby("formula")["rank"].max().between(1, 2).all()
    crystals = read_crystals(out)
    assert [c.id for c in crystals] == table["id"].tolist()
    assert set(shown(out / "index.html")) == set(table["id"])
    for row in table.itertuples():
        structure = Structure.from_file(out / "cif" / f"{row.id}.cif")
        assert structure.composition.reduced_formula == row.formula
        assert space_group(structure, 1e-3) == row.space_group
    run = json.loads((out / "run.json").read_text())
    assert (run["formulas"], run["failures"]) == (2, [])
    assert run["asked"]["formula"] == ["KMgF3", "NaBr"]
    assert not (out / "parts").exists()
    before, journal = [(out / name).read_bytes() for name in ("candidates.csv", prediction.JOURNAL)]
    assert command(*arguments) == 0
    assert (out / "candidates.csv").read_bytes() == before
    assert (out / prediction.JOURNAL).read_bytes() == journal


def test_an_interrupted_run_begins_no_formula_again(tmp_path, monkeypatch):
    """Interrupted in the third formula, it goes on with that one, and ends as a run left in peace."""
    formulas = tmp_path / "formulas.txt"
    formulas.write_text("KMgF3\nNaBr\nMgO\nTiO2\n")
    asked, of = [], prediction.Proposals.of

    def counted(self, formula, *rest):
        asked.append(formula)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return of(self, formula, *rest)

    monkeypatch.setattr(prediction.Proposals, "of", counted)
    words = ("csp", formulas, "--no-relax", "--candidates", 3, "--out")
    assert command(*words, tmp_path / "a") == 130
    assert not (tmp_path / "a" / "candidates.csv").exists()
    assert command(*words, tmp_path / "a") == 0
    assert len(asked) == 3 + 2
    assert command(*words, tmp_path / "b") == 0
    tables = [(tmp_path / name / "candidates.csv").read_bytes() for name in "ab"]
    assert tables[0] == tables[1]


def test_what_is_known_and_what_was_reduced_is_told(tmp_path, capsys):
    """In the summary, and in the table."""
    words = ("csp", "Ti3O6", "--no-relax", "--candidates", 6, "--out", tmp_path / "out")
    assert command(*words) == 0
    said = " ".join(capsys.readouterr().out.split())
    table = pd.read_csv(tmp_path / "out" / "candidates.csv")
    known = table["known"].dropna()
    assert f"known: {known[0]} and {len(known) - 1} more" in said
    assert "Ti3O6 to TiO2: --atoms says how many atoms a cell has" in said
    assert command(*words[:2], "--atoms", 6, *words[2:-1], tmp_path / "six") == 0
    assert "reduced" not in capsys.readouterr().out


def test_a_formula_that_fails_is_named(tmp_path, capsys):
    """The others are written; exit status 1."""
    words = ("csp", "NaCl", "Gd3Li2Br7", "--space-group", 225, "--no-relax", "--candidates", 2)
    assert command(*words, "--out", tmp_path / "out") == 1
    assert (
        "left out: Li2Gd3Br7 (formula): no combination of orbits of space group 225"
        in capsys.readouterr().err
    )
    assert set(pd.read_csv(tmp_path / "out" / "candidates.csv")["formula"]) == {"NaCl"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("Xx2O",), "'Xx2O': expected element symbols"),
        (("D2O",), "isotopes"),
        (("C31H29",), "expected at most 20 atoms in a formula unit"),
        (("TiO2", "--atoms", 7), "multiple of 3"),
        (("TiO2", "--space-group", 300), "from 1 to 230"),
        (("NaCl", "Cl2Na2"), "each formula once"),
        (("NaCl", "--candidates", 0), "at least one candidate"),
        (("empty.txt",), "expected formulas in empty.txt"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, words, said):
    """Nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    assert command("csp", *words, "--out", "out") == 2
    told = capsys.readouterr().err
    assert said in " ".join(told.split())
    assert told.count("\n") == 1
    assert not Path("out").exists()
