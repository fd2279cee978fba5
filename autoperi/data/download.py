"""Find a public data set: in a local folder, in the cache, or at its public home (checked by its hash)."""

import hashlib
import os
import warnings
from pathlib import Path

import pooch

from autoperi.data.cache import cache_folder

_CDVAE = "https://raw.githubusercontent.com/txie-93/cdvae/main/data"
_DIFFCSP = "https://raw.githubusercontent.com/jiaor17/DiffCSP/main/data"
_HOMES = {"mp_20": _CDVAE, "perov_5": _CDVAE, "carbon_24": _CDVAE, "mpts_52": _DIFFCSP}
_BLOBS = {
    "mp_20/train.csv": "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
    "mp_20/val.csv": "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
    "mp_20/test.csv": "5dc643041df53f5ce4970a79930ad262b4f07acd",
    "perov_5/train.csv": "0769074b5d51d293b765c4371b8f55c468c9c9f2",
    "perov_5/val.csv": "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
    "perov_5/test.csv": "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
    "carbon_24/train.csv": "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
    "carbon_24/val.csv": "b3e29b927883642426ca1d9632d00359b412742b",
    "carbon_24/test.csv": "9beca843fde489de1fe288b32f9e3ff710d42803",
}
"""Git blob ids, the only hashes that the homes publish; the home of mpts_52 has none that we could check."""

_WHOLE = {"zeolites": "zeolites_iza/iza_zeolites"}
"""Data sets of one file that has no public home: the IZA publishes a CIF a framework."""

DATASETS = (*_HOMES, *_WHOLE)
"""Names of the public data sets."""
SPLITS = ("train", "val", "test")
_FOLDS = 10


class DownloadError(RuntimeError):
    """A file that could not be fetched, or is not what it should be."""


def dataset_file(name: str, split: str, data_dir: str | Path | None = None) -> Path:
    """The CSV file of one split of a public data set; of ``zeolites``, that of all splits (`fold`).

    Looked for in ``data_dir``, else in the folder named by ``AUTOPERI_DATA``, as ``<name>/<split>.csv``,
    gzipped or not. With neither given it is downloaded to the cache, once, and its git blob id checked.

    Raises:
        ValueError: unknown name or split.
        FileNotFoundError: a local folder was given and does not hold it.
        DownloadError: no network, or the downloaded file is not the published one.
    """
    if name not in DATASETS:
        raise ValueError(f"expected a data set among {', '.join(DATASETS)} or a path: got {name!r}")
    if split not in SPLITS:
        raise ValueError(f"expected a split among {', '.join(SPLITS)}: got {split!r}")
    folder = data_dir or os.environ.get("AUTOPERI_DATA")
    if name in _WHOLE:
        return _whole_file(name, folder)
    if folder:
        return _local_file(Path(folder).expanduser(), name, split)
    return _downloaded(name, f"{name}/{split}.csv")


def fold(id: str) -> int:
    """Which of ten parts a crystal belongs to, by its name alone."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:4], "big") % _FOLDS


def split_folds(name: str, split: str) -> tuple[int, ...] | None:
    """Folds of a split: test 0 and 1, val 2, train the others; None where each split has its own file."""
    return {"test": (0, 1), "val": (2,), "train": tuple(range(3, _FOLDS))}[split] if name in _WHOLE else None


def git_blob_id(content: bytes) -> str:
    """The id under which git stores a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _whole_file(name: str, folder: str | Path | None) -> Path:
    stem = _WHOLE[name]
    for suffix in (".csv.gz", ".csv"):
        if folder and (file := Path(folder).expanduser() / f"{stem}{suffix}").exists():
            return file
    where = f"in {folder}" if folder else "in data_dir or the folder named by AUTOPERI_DATA"
    raise FileNotFoundError(
        f"expected {stem}.csv or .csv.gz {where}: found neither, and there is no public file to download; "
        "make it of the CIFs of https://www.iza-structure.org/databases, with columns framework (the code) "
        "and cif"
    )


def _local_file(folder: Path, name: str, split: str) -> Path:
    for stem in (split, f"{split}_partial"):
        for suffix in (".csv.gz", ".csv"):
            file = folder / name / f"{stem}{suffix}"
            if file.exists():
                if stem != split:
                    warnings.warn(f"{file} is only a part of the {split} split of {name}", stacklevel=3)
                return file
    raise FileNotFoundError(
        f"expected {name}/{split}.csv or .csv.gz in {folder}: found neither; put it there, or unset "
        "data_dir and AUTOPERI_DATA to download it"
    )


def _downloaded(name: str, file: str) -> Path:
    """A file of the cache, fetched where it is missing or not what was published."""
    home = pooch.create(cache_folder() / "downloads", f"{_HOMES[name]}/", registry={file: None})
    kept = cache_folder() / "downloads" / file
    if kept.exists() and _BLOBS.get(file) not in (None, git_blob_id(kept.read_bytes())):
        warnings.warn(f"{kept} is damaged: it is downloaded again", stacklevel=3)
        kept.unlink()
    try:
        return Path(home.fetch(file, downloader=_download))  # type: ignore[arg-type]
    except (OSError, ValueError) as error:  # of network and disk, and of a wrong hash
        raise DownloadError(
            f"cannot download {home.get_url(file)} ({type(error).__name__}: {error}); nothing was kept: "
            f"try again, or give data_dir or set AUTOPERI_DATA to a folder that holds {file}"
        ) from error


def _download(url: str, part: str, home: pooch.Pooch) -> None:
    """Fetch to a path of pooch's, which keeps it only if this does not raise ValueError."""
    pooch.HTTPDownloader(progressbar=False)(url, part, home)
    content = Path(part).read_bytes()
    expected, got = _BLOBS.get("/".join(url.split("/")[-2:])), git_blob_id(content)
    if expected is None:
        warnings.warn(f"{url} has no published hash to check: got git blob id {got}", stacklevel=2)
    elif got != expected:
        raise ValueError(
            f"expected git blob id {expected}, got {len(content)} bytes with {got}: the download was cut "
            "off or the file has changed"
        )
