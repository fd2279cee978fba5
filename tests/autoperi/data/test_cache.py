"""The cache: whole files or none, entries that heal, and work that goes on where nothing can be kept."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from autoperi.data.cache import cache_folder, cached, versions, written_whole


def _read(file: Path) -> np.ndarray:
    values = np.load(file, allow_pickle=False)
    if values.shape != (3,):
        raise ValueError(f"expected 3 values: got {values.shape}")
    return values


def _write(file: Path, values: np.ndarray) -> None:
    with file.open("wb") as stream:
        np.save(stream, values)


def _three(file: Path) -> np.ndarray:
    return cached(file, _read, lambda: np.arange(3.0), _write)


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("AUTOPERI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "autoperi"


def test_an_entry_is_made_once(tmp_path):
    file = tmp_path / "new" / "x.npy"
    assert _three(file).tolist() == [0, 1, 2]
    assert cached(file, _read, lambda: 1 / 0, _write).tolist() == [0, 1, 2]
    assert [p.name for p in file.parent.iterdir()] == ["x.npy"]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"PK\x03\x04 cut", b"not numpy at all", None])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    file = tmp_path / "x.npy"
    _three(file)
    if damage is None:
        _write(file, np.arange(2.0))
    else:
        file.write_bytes(damage)
    with pytest.warns(UserWarning, match=r"x\.npy is damaged .*it is made again"):
        assert _three(file).tolist() == [0, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _three(file).tolist() == [0, 1, 2]


def test_nothing_stands_under_the_name_before_it_is_whole(tmp_path):
    file = tmp_path / "x.txt"

    def interrupted():
        with written_whole(file) as part:
            part.write_text("half")
            assert not file.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x.txt.999.part").write_text("of a killed run")
    (tmp_path / "y.txt.999.part").write_text("of another entry")
    with written_whole(file) as part:
        part.write_text("whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.txt", "y.txt.999.part"]


def test_a_writer_that_is_overtaken_finds_the_file(tmp_path):
    file = tmp_path / "x.txt"
    with written_whole(file) as part:
        part.write_text("second")
        other = part.with_name("x.txt.1.part")
        other.write_text("first")
        other.replace(file)
        part.unlink()
    assert file.read_text() == "first"


@pytest.mark.parametrize("blocked", ["a file in its place", "no permission"])
def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, blocked):
    folder = tmp_path / "cache"
    if blocked == "no permission":
        folder.mkdir(mode=0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
    else:
        folder.write_text("")
    with pytest.warns(UserWarning, match=r"cannot be written \(.*set AUTOPERI_CACHE"):
        assert _three(folder / "x.npy").tolist() == [0, 1, 2]


def test_versions_name_what_is_not_installed():
    assert versions("numpy", "no-such-package") == {
        "numpy": np.__version__,
        "no-such-package": "not installed",
    }
