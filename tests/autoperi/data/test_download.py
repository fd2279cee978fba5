"""Public data sets: checked, kept once, and explained where they cannot be had."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from autoperi.data import download
from autoperi.data.download import SPLITS, DownloadError, dataset_file, fold, git_blob_id, split_folds


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A home on this machine that publishes one split."""
    monkeypatch.delenv("AUTOPERI_DATA", raising=False)
    home = tmp_path / "home" / "mp_20"
    home.mkdir(parents=True)
    (home / "train.csv").write_text("material_id,cif\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "home"))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    url, good = f"http://127.0.0.1:{http.server_port}", git_blob_id(b"material_id,cif\n")
    monkeypatch.setitem(download._HOMES, "mp_20", url)
    for split in ("train", "val"):
        monkeypatch.setitem(download._BLOBS, f"mp_20/{split}.csv", good)
    yield home
    http.shutdown()


def test_download_is_checked_and_kept(server):
    file = dataset_file("mp_20", "train")
    assert file.read_text() == "material_id,cif\n"
    (server / "train.csv").unlink()
    assert dataset_file("mp_20", "train") == file


@pytest.mark.usefixtures("server")
def test_a_cut_download_in_the_cache_is_fetched_again():
    file = dataset_file("mp_20", "train")
    file.write_text("material_id")
    with pytest.warns(UserWarning, match="is damaged: it is downloaded again"):
        assert dataset_file("mp_20", "train") == file
    assert file.read_text() == "material_id,cif\n"


def test_a_file_without_a_published_hash_is_named(server, monkeypatch):
    monkeypatch.setitem(download._HOMES, "mpts_52", download._HOMES["mp_20"])
    (server.parent / "mpts_52").mkdir()
    (server.parent / "mpts_52" / "val.csv").write_text("material_id,cif\n")
    with pytest.warns(UserWarning, match="no published hash to check: got git blob id"):
        assert dataset_file("mpts_52", "val").read_text() == "material_id,cif\n"


@pytest.mark.usefixtures("server")
def test_a_cache_that_cannot_be_written_is_one_error(monkeypatch, tmp_path):
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("AUTOPERI_CACHE", str(tmp_path / "blocked"))
    with pytest.raises(DownloadError, match=r"blocked.*give data_dir or set AUTOPERI_DATA"):
        dataset_file("mp_20", "train")


def test_corrupted_download_is_refused(server, tmp_path):
    (server / "train.csv").write_text("material_id,ci")
    with pytest.raises(DownloadError, match=r"git blob id.*cut off or the file has changed"):
        dataset_file("mp_20", "train")
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []
    with pytest.raises(DownloadError, match=r"cannot download.*set AUTOPERI_DATA"):
        dataset_file("mp_20", "val")


def test_git_blob_id_is_git_s():
    assert git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_zeolites_are_of_one_file_that_must_be_there(tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOPERI_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"iza_zeolites\.csv.*AUTOPERI_DATA.*no public file.*framework"
    ):
        dataset_file("zeolites", "train")
    file = tmp_path / "zeolites_iza" / "iza_zeolites.csv.gz"
    file.parent.mkdir()
    file.touch()
    assert {dataset_file("zeolites", split, tmp_path) for split in SPLITS} == {file}


def test_folds_are_of_the_name_alone_and_make_up_every_split_once():
    codes = [f"{a}{b}{c}" for a in "ABC" for b in "DEFGHIJKLM" for c in "NOPQRSTUVW"]
    counts = [sum(fold(code) == k for code in codes) for k in range(10)]
    assert sum(counts) == len(codes)
    assert min(counts) > 15
    assert [fold(code) for code in ("MFI", "FAU", "SOD")] == [0, 2, 5]
    folds = [k for split in SPLITS for k in split_folds("zeolites", split) or ()]
    assert sorted(folds) == list(range(10))
    assert split_folds("mp_20", "train") is None
