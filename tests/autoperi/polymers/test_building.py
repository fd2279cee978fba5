"""Many polymers: tables read, bad ones named, work gone on with, files written."""

import pandas as pd
import pytest

from autoperi.data.files import read_crystals
from autoperi.polymers import building
from autoperi.polymers.building import HOMOPOLYMERS, Polymer, built, failures, read_polymers, save
from autoperi.polymers.repeat_unit import PolymerError, RepeatUnit

pytest.importorskip("rdkit", reason="rdkit is not installed")

POLYETHYLENE = Polymer("polyethylene", "*CC*")


def test_the_table_holds_some_eighty_repeat_units():
    found = read_polymers([str(HOMOPOLYMERS)])
    assert len(found) >= 80
    assert len({polymer.name for polymer in found}) == len(found)
    units = {RepeatUnit.of(polymer.smiles).smiles for polymer in found}
    assert len(units) == len(found)


def test_smiles_and_tables_are_read_together(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("name,smiles,helix\nPE,*CC*,\nPTFE,*C(F)(F)*,15/7\n")
    found = read_polymers(["*CO*", str(table)])
    assert found == [Polymer("*CO*", "*CO*"), Polymer("PE", "*CC*"), Polymer("PTFE", "*C(F)(F)*", "15/7")]


def test_nothing_to_build_is_refused(tmp_path):
    with pytest.raises(PolymerError, match="with 0 of them"):
        read_polymers(["CC", "C*"])
    table = tmp_path / "mine.csv"
    table.write_text("name,unit\nPE,*CC*\n")
    with pytest.raises(PolymerError, match=r"columns name and smiles .* got no smiles"):
        read_polymers([str(table)])
    with pytest.raises(FileNotFoundError):
        read_polymers([str(tmp_path / "none.csv")])


def test_bad_ones_are_named_and_the_others_built_and_written(tmp_path):
    found = list(built([Polymer("bad", "CC"), POLYETHYLENE], tmp_path / "journal.jsonl"))
    ((name, smiles, reason),) = failures(found)
    assert (name, smiles) == ("bad", "CC")
    assert "with 0 of them" in reason
    folder = tmp_path / "out"
    folder.mkdir()
    record = save(found, folder)
    table = pd.read_csv(folder / "polymers.csv")
    assert record["crystals"] == len(table) == len(found[1].crystals)
    assert table["id"].tolist() == [crystal.id for crystal in read_crystals(folder)]
    assert set(table["polymer"]) == {"polyethylene"}


def test_a_run_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    """The last line cut: that polymer is built again, the other is not."""
    journal = tmp_path / "journal.jsonl"
    first = list(built([POLYETHYLENE, Polymer("bad", "CC")], journal))
    journal.write_text(journal.read_text()[:-9])
    asked = []

    def told(name, *_):
        asked.append(name)
        raise PolymerError("again")

    monkeypatch.setattr(building, "polymer_crystals", told)
    again = list(built([POLYETHYLENE, Polymer("bad", "CC")], journal))
    assert asked == ["bad"]
    assert [one.crystal for one in again[0].crystals] == [one.crystal for one in first[0].crystals]
    assert [one.row() for one in again[0].crystals] == [one.row() for one in first[0].crystals]
    assert again[1].fault == "again"
    assert len(journal.read_text().splitlines()) == 2
