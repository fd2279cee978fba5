"""Output folders: one run at a time, one run's results, whole or not at all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoperi.data.run_folder import FolderError, content_hash, run_folder, write_run

ASKED = {"command": "sample", "n": 3, "seed": 0}


def run(out, files, asked=ASKED, reads=None):
    with run_folder(out, asked, reads) as folder:
        for name, text in files.items():
            (folder.new / name).parent.mkdir(exist_ok=True)
            (folder.new / name).write_text(text)
        folder.finish({"crystals": len(files)})


def broken_off(out, error, journal=None):
    """A run that ends before its end."""
    with run_folder(out, ASKED) as folder:
        (folder.new / "table.csv").write_text("half")
        if journal:
            (folder.path / "journal").write_text(journal)
        raise error


def contents(out):
    return {p.relative_to(out).as_posix(): p.read_text() for p in out.rglob("*") if p.is_file()}


def test_results_have_their_names_at_the_end_and_the_record_names_them(tmp_path):
    with run_folder(tmp_path / "a" / "b", ASKED) as folder:
        (folder.new / "cif").mkdir()
        (folder.new / "cif" / "x.cif").write_text("x")
        assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == [".unfinished"]
        folder.finish({"crystals": 1})
    assert [p.name for p in sorted((tmp_path / "a" / "b").iterdir())] == ["cif", "run.json"]
    record = json.loads((tmp_path / "a" / "b" / "run.json").read_text())
    assert record["asked"] == ASKED
    assert record["files"] == ["cif/x.cif"]
    assert record["crystals"] == 1
    assert record["versions"]["torch"]


def test_the_same_run_again_leaves_no_file_of_the_first(tmp_path):
    run(tmp_path, {"table.csv": "1", "cif/a.cif": "a", "cif/b.cif": "b", "old/c": "c"})
    (tmp_path / "cif" / "mine.txt").write_text("not theirs")
    run(tmp_path, {"table.csv": "2", "cif/a.cif": "a"})
    found = contents(tmp_path)
    found.pop("run.json")
    assert found == {"table.csv": "2", "cif/a.cif": "a", "cif/mine.txt": "not theirs"}
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("other", [{"seed": 1}, {"command": "relax"}, {"formula": "NaCl"}])
def test_another_run_is_refused_by_what_differs(tmp_path, other):
    run(tmp_path, {"table.csv": "1"})
    before = contents(tmp_path)
    key, value = next(iter(other.items()))
    with pytest.raises(FolderError, match=f"{key} {ASKED.get(key)}, now {value}.*give another"):
        run(tmp_path, {"table.csv": "2"}, ASKED | other)
    assert contents(tmp_path) == before


def test_an_option_of_a_group_is_named_by_itself(tmp_path):
    run(tmp_path, {"table.csv": "1"}, ASKED | {"ranges": {"band_gap": "1:2", "bulk_modulus": None}})
    with pytest.raises(FolderError, match=r"\(bulk_modulus None, now 9:\)"):
        run(tmp_path, {"table.csv": "1"}, ASKED | {"ranges": {"band_gap": "1:2", "bulk_modulus": "9:"}})


def test_another_input_of_the_same_name_is_refused(tmp_path):
    (tmp_path / "in.csv").write_text("1")
    run(tmp_path / "out", {"table.csv": "1"}, reads=tmp_path / "in.csv")
    run(tmp_path / "out", {"table.csv": "1"}, reads=tmp_path / "in.csv")
    (tmp_path / "in.csv").write_text("2")
    with pytest.raises(FolderError, match="another input"):
        run(tmp_path / "out", {"table.csv": "1"}, reads=tmp_path / "in.csv")


def test_files_of_others_are_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds notes\.txt"):
        run(tmp_path, {"table.csv": "1"})
    (tmp_path / "notes.txt").unlink()
    (tmp_path / "elsewhere").write_text("mine")
    record = {"asked": ASKED, "files": ["../elsewhere", "table.csv"]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(json.dumps(record))
    run(tmp_path / "out", {"new.csv": "1"})
    assert (tmp_path / "elsewhere").exists()


def test_records_without_what_was_asked_and_damaged_ones_are_refused(tmp_path):
    write_run(tmp_path, {"seed": 0})
    with pytest.raises(FolderError, match="does not say what was asked"):
        run(tmp_path, {"table.csv": "1"})
    (tmp_path / "run.json").write_text('{"asked": {')
    with pytest.raises(FolderError, match=r"run\.json is damaged"):
        run(tmp_path, {"table.csv": "1"})


def test_replacing_takes_the_files_of_any_earlier_run_away(tmp_path):
    run(tmp_path, {"cif/a.cif": "a", "cif/b.cif": "b"})
    run(tmp_path, {"cif/c.cif": "c"}, asked=None)
    assert set(contents(tmp_path)) == {"cif/c.cif", "run.json"}


def test_a_run_that_fails_leaves_the_folder_as_it_was(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        broken_off(out, ZeroDivisionError)
    assert not out.exists()
    run(out, {"table.csv": "1"})
    before = contents(out)
    with pytest.raises(ZeroDivisionError):
        broken_off(out, ZeroDivisionError)
    assert contents(out) == before


def test_a_run_that_left_a_journal_goes_on_and_no_other_does(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        broken_off(tmp_path, KeyboardInterrupt, journal="half")
    with pytest.raises(FolderError, match="seed 0, now 1"):
        run(tmp_path, {}, ASKED | {"seed": 1})
    with run_folder(tmp_path, ASKED) as folder:
        assert (folder.path / "journal").read_text() == "half"
        folder.finish({})
    assert set(contents(tmp_path)) == {"journal", "run.json"}


def test_results_do_not_fall_into_the_input(tmp_path):
    cifs = tmp_path / "cifs"
    cifs.mkdir()
    (cifs / "a.cif").write_text("data_a")
    for out in (cifs, cifs / "relaxed", tmp_path / "x" / ".." / "cifs"):
        with pytest.raises(FolderError, match="outside of the input"):
            run(out, {}, reads=cifs)
    assert [p.name for p in cifs.iterdir()] == ["a.cif"]
    (cifs / "crystals.extxyz").write_text("")  # now this file alone is read
    run(cifs / "relaxed", {"a": "b"}, reads=cifs)


def test_what_cannot_be_written_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        with pytest.raises(FolderError, match="cannot write into"), run_folder(out, ASKED):
            pytest.fail("the work began")


def test_a_full_disk_names_the_file_and_keeps_what_was_there(tmp_path):
    run(tmp_path, {"table.csv": "1"})
    before = contents(tmp_path)

    def overflowing():
        with run_folder(tmp_path, ASKED) as folder:
            (folder.new / "table.csv").symlink_to("/dev/full")
            (folder.new / "table.csv").write_text("2")

    with pytest.raises(FolderError, match=r"no space left to write .*table\.csv"):
        overflowing()
    assert contents(tmp_path) == before


HOLD = """
import sys, time
from autoperi.data.run_folder import run_folder
with run_folder(sys.argv[1], {"command": "sample", "n": 3, "seed": 0}) as folder:
    (folder.new / "table.csv").write_text("half")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_two_runs_at_once_are_refused_and_the_lock_dies_with_its_process(tmp_path, end):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FolderError, match=f"process {holder.pid}"):
            run(tmp_path / "out", {"table.csv": "1"})
        os.kill(holder.pid, end)
        holder.wait(10)
    run(tmp_path / "out", {"table.csv": "1"}, ASKED | {"seed": 1})  # it had left nothing of its own
    assert contents(tmp_path / "out")["table.csv"] == "1"


def test_killed_while_files_get_their_names_the_same_run_heals(tmp_path, monkeypatch):
    run(tmp_path, {"a": "1", "b": "1", "c": "1"})
    replace, calls = Path.replace, []

    def dying(self, target):
        calls.append(target)
        if len(calls) == 4:
            raise SystemExit
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    with pytest.raises(SystemExit):
        run(tmp_path, {"a": "2", "b": "2", "d": "2"})
    monkeypatch.undo()
    assert not (tmp_path / "run.json").exists()  # nothing claims to be whole
    with pytest.raises(FolderError, match="seed 0, now 1"):
        run(tmp_path, {"a": "3"}, ASKED | {"seed": 1})
    run(tmp_path, {"a": "2"})
    assert set(contents(tmp_path)) == {"a", "run.json"}


def test_the_hash_of_an_input_is_of_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = content_hash(tmp_path)
    (tmp_path / "a").write_text("2")
    second = content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, content_hash(tmp_path), content_hash(tmp_path / "b")}) == 4
    start = time.perf_counter()
    content_hash("/dev/zero")  # what is no file has no content
    assert time.perf_counter() - start < 1
    with pytest.raises(FileNotFoundError, match="does not exist"):
        content_hash(tmp_path / "nothing")
