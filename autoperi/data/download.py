"""Find a public data set: in a local folder, in the cache, or at its public home (checked by its hash)."""

import hashlib
import os
import warnings
from pathlib import Path

import pooch

from autoperi.data.cache import cache_folder

_CDVAE = "https://raw.githubusercontent.com/txie-93/cdvae/main/data"
_DIFFCSP = "https://raw.githubusercontent.com/jiaor17/DiffCSP/main/data"

# name: (home, git blob id of each split; None where the home publishes no hash we could check)
_HOMES: dict[str, tuple[str, dict[str, str | None]]] = {
    "mp_20": (
        _CDVAE,
        {
            "train": "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
            "val": "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
            "test": "5dc643041df53f5ce4970a79930ad262b4f07acd",
        },
    ),
    "perov_5": (
        _CDVAE,
        {
            "train": "0769074b5d51d293b765c4371b8f55c468c9c9f2",
            "val": "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
            "test": "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
        },
    ),
    "carbon_24": (
        _CDVAE,
        {
            "train": "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
            "val": "b3e29b927883642426ca1d9632d00359b412742b",
            "test": "9beca843fde489de1fe288b32f9e3ff710d42803",
        },
    ),
    "mpts_52": (_DIFFCSP, {"train": None, "val": None, "test": None}),
}

DATASETS = tuple(_HOMES)
"""Names that ``load_dataset`` knows."""


class DownloadError(RuntimeError):
    """A file that could not be fetched, or is not what it should be."""


def dataset_file(name: str, split: str, data_dir: str | Path | None = None) -> Path:
    """The CSV file of one split of a public data set.

    Looked for in ``data_dir``, else in the folder named by ``AUTOPERI_DATA``, as ``<name>/<split>.csv``,
    gzipped or not. With neither given it is downloaded to the cache, once, and its git blob id checked.

    Raises:
        ValueError: unknown name or split.
        FileNotFoundError: a local folder was given and does not hold it.
        DownloadError: no network, or the downloaded file is not the published one.
    """
    if name not in _HOMES:
        raise ValueError(f"expected a data set among {', '.join(DATASETS)} or a path: got {name!r}")
    home, hashes = _HOMES[name]
    if split not in hashes:
        raise ValueError(f"expected a split among {', '.join(hashes)}: got {split!r}")
    folder = data_dir or os.environ.get("AUTOPERI_DATA")
    if folder:
        return _local_file(Path(folder).expanduser(), name, split)
    target = cache_folder() / "downloads" / name / f"{split}.csv"
    if not target.exists():
        _fetch(f"{home}/{name}/{split}.csv", target, hashes[split])
    return target


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


def _fetch(url: str, target: Path, blob_id: str | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        pooch.HTTPDownloader(progressbar=False)(url, str(part), None)
        content = part.read_bytes()
        got = git_blob_id(content)
        if blob_id is not None and got != blob_id:
            raise DownloadError(
                f"expected {url} with git blob id {blob_id}: got {len(content)} bytes with {got}; the "
                "download was cut off or the file has changed. Nothing was kept: try again, or give data_dir"
            )
        if blob_id is None:
            warnings.warn(f"{url} has no published hash to check: got git blob id {got}", stacklevel=4)
        part.replace(target)
    except DownloadError:
        raise
    except Exception as error:  # whatever the network layers raise
        raise DownloadError(
            f"cannot download {url} ({type(error).__name__}: {error}); with a copy at hand, give data_dir or "
            f"set AUTOPERI_DATA to the folder that holds {target.parent.name}/{target.name}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def git_blob_id(content: bytes) -> str:
    """The id under which git stores a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
