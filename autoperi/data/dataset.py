"""Data sets of crystals: read, symmetrised once, cached, and batched without a loop over crystals."""

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.hull import Hull
from autoperi.crystals.labels import DEFAULT_CONDITIONS
from autoperi.crystals.symmetry import SymmetriseConfig
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.data.cache import cache_folder, cached
from autoperi.data.download import DATASETS, SPLITS, dataset_file, fold, split_folds
from autoperi.data.preprocess import prepare


@dataclass(frozen=True)
class CrystalDataset(Sequence[Crystal]):
    """Crystals in flat arrays: rows ``site_start[i] : site_start[i+1]`` are the sites of crystal i.

    Attributes:
        ids: names from the source.
        labels: one array per label, NaN where missing: always ``formation_energy`` (eV/atom),
            ``band_gap`` (eV) and ``e_above_hull`` (eV/atom), and whatever else the source gives.
        symprec: tolerance at which each was symmetrised, Å; NaN if it was not.
        failures: (id, where, reason) of what could not be read or symmetrised.
        name: where it comes from.
    """

    space_group: Int[Tensor, "crystals"]
    lattice_coords: Float[Tensor, "crystals 6"]
    site_start: Int[Tensor, "crystals+1"]
    wyckoff: Int[Tensor, "sites"]
    species: Int[Tensor, "sites"]
    free: Float[Tensor, "sites 3"]
    ids: np.ndarray
    labels: dict[str, np.ndarray]
    symprec: np.ndarray
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    name: str = ""

    @classmethod
    def from_crystals(cls, crystals: Sequence[Crystal], name: str = "") -> "CrystalDataset":
        """A data set of crystals in memory; their properties become labels.

        Raises:
            ValueError: an empty list.
        """
        batch = CrystalBatch.from_crystals(crystals)
        counts = torch.tensor([c.n_sites for c in crystals])
        others = {k for c in crystals for k in c.properties} - set(DEFAULT_CONDITIONS)
        keys = [*DEFAULT_CONDITIONS, *sorted(others)]
        return cls(
            space_group=batch.space_group,
            lattice_coords=batch.lattice_coords,
            site_start=torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
            wyckoff=batch.wyckoff,
            species=batch.species,
            free=batch.free,
            ids=np.array([c.id for c in crystals], dtype=str),
            labels={k: np.array([c.properties.get(k, np.nan) for c in crystals], float) for k in keys},
            symprec=np.array([c.provenance.get("symprec", np.nan) for c in crystals], float),
            name=name,
        )

    @classmethod
    def joined(cls, parts: "Sequence[CrystalDataset]", name: str = "") -> "CrystalDataset":
        """Several data sets one after the other, with the labels of all; NaN where a part has none."""
        ends = np.cumsum([0, *(int(part.site_start[-1]) for part in parts)]).tolist()
        starts = [part.site_start[1:] + end for part, end in zip(parts, ends, strict=False)]
        flat = {
            field: torch.cat([getattr(part, field) for part in parts])
            for field in ("space_group", "lattice_coords", "wyckoff", "species", "free")
        }
        keys = sorted({key for part in parts for key in part.labels})
        rows = {key: [part.labels.get(key, np.full(len(part), np.nan)) for part in parts] for key in keys}
        return cls(
            **flat,
            site_start=torch.cat([torch.zeros(1, dtype=torch.long), *starts]),
            ids=np.concatenate([part.ids for part in parts]),
            labels={key: np.concatenate(values) for key, values in rows.items()},
            symprec=np.concatenate([part.symprec for part in parts]),
            failures=[row for part in parts for row in part.failures],
            name=name or " + ".join(part.name for part in parts),
        )

    def __len__(self) -> int:
        return len(self.space_group)

    @overload
    def __getitem__(self, index: int) -> Crystal: ...
    @overload
    def __getitem__(self, index: slice) -> "CrystalDataset": ...
    def __getitem__(self, index: int | slice) -> "Crystal | CrystalDataset":
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}: got {index}")
        index = int(index) % len(self)
        sites = slice(*self.site_start[index : index + 2].tolist())
        found = {key: float(values[index]) for key, values in self.labels.items()}
        return Crystal(
            space_group=int(self.space_group[index]),
            wyckoff=self.wyckoff[sites].numpy().copy(),
            species=self.species[sites].numpy().copy(),
            free=self.free[sites].numpy().copy(),
            lattice_coords=self.lattice_coords[index].numpy().copy(),
            id=str(self.ids[index]),
            properties={key: value for key, value in found.items() if not np.isnan(value)},
            provenance={"source": self.name, "symprec": float(self.symprec[index])},
        )

    def batch(self, indices: Sequence[int] | np.ndarray | Int[Tensor, "crystals"]) -> CrystalBatch:
        """Some crystals as a ragged batch, in the order of the indices."""
        index, crystal, rows = self._gather(indices)
        return CrystalBatch(
            space_group=self.space_group[index],
            lattice_coords=self.lattice_coords[index],
            crystal=crystal,
            wyckoff=self.wyckoff[rows],
            species=self.species[rows],
            free=self.free[rows],
        )

    def conditions(
        self, indices: Sequence[int] | np.ndarray | Int[Tensor, "crystals"], names: Iterable[str]
    ) -> Float[Tensor, "crystals scalars"]:
        """The labels that a model is conditioned on, a column for each name; NaN where one is missing.

        Raises:
            ValueError: a name that no crystal of the data set has a label of.
        """
        index, names = torch.as_tensor(indices).long().numpy(), list(names)
        unknown = [name for name in names if name not in self.labels]
        if unknown:
            raise ValueError(f"expected labels {unknown} in {self.name}: it has {sorted(self.labels)}")
        columns = [self.labels[name][index] for name in names]
        return torch.from_numpy(np.stack(columns, axis=1) if columns else np.zeros((len(index), 0))).float()

    def select(self, indices: Sequence[int] | np.ndarray | Int[Tensor, "crystals"]) -> "CrystalDataset":
        """A part of the data set, in the order of the indices."""
        index, crystal, rows = self._gather(indices)
        counts = torch.bincount(crystal, minlength=len(index))
        chosen = index.numpy()
        return replace(
            self,
            space_group=self.space_group[index],
            lattice_coords=self.lattice_coords[index],
            site_start=torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]),
            wyckoff=self.wyckoff[rows],
            species=self.species[rows],
            free=self.free[rows],
            ids=self.ids[chosen],
            labels={key: values[chosen] for key, values in self.labels.items()},
            symprec=self.symprec[chosen],
        )

    def n_atoms(self) -> Int[np.ndarray, "crystals"]:
        """Atoms per primitive cell."""
        atoms = wyckoff_table().multiplicity.numpy()[self.wyckoff.numpy()]
        ends = np.concatenate([[0], np.cumsum(atoms)])[self.site_start.numpy()]
        return np.diff(ends)

    def compositions(self) -> list[dict[int, float]]:
        """Atoms of each element (by atomic number) per primitive cell."""
        amounts = wyckoff_table().multiplicity.numpy()[self.wyckoff.numpy()].tolist()
        species, start = self.species.tolist(), self.site_start.tolist()
        found: list[dict[int, float]] = []
        for first, last in pairwise(start):
            counts: dict[int, float] = {}
            for row in range(first, last):
                counts[species[row]] = counts.get(species[row], 0) + amounts[row]
            found.append(counts)
        return found

    def content_hash(self) -> str:
        """SHA-256 of everything that a training sees: structures, ids and labels."""
        digest = hashlib.sha256()
        flat = (self.space_group, self.site_start, self.wyckoff, self.species, self.free, self.lattice_coords)
        for tensor in flat:
            digest.update(tensor.numpy().tobytes())
        for name in sorted(self.labels):
            digest.update(f"\0{name}\0".encode() + self.labels[name].tobytes())
        digest.update("\0".join(self.ids.tolist()).encode())
        return digest.hexdigest()

    def _gather(
        self, indices: Sequence[int] | np.ndarray | Tensor
    ) -> tuple[Int[Tensor, "crystals"], Int[Tensor, "sites"], Int[Tensor, "sites"]]:
        """Crystal indices, the crystal of each of their sites, and the rows of those sites."""
        index = torch.as_tensor(np.asarray(indices)).long()
        start = self.site_start[index]
        counts = self.site_start[index + 1] - start
        crystal = torch.repeat_interleave(torch.arange(len(index)), counts)
        within = torch.arange(len(crystal)) - (counts.cumsum(0) - counts)[crystal]
        return index, crystal, start[crystal] + within


def load_dataset(
    name_or_path: str | Path,
    split: str | None = "train",
    data_dir: str | Path | None = None,
    *,
    workers: int = 2,
    config: SymmetriseConfig | None = None,
    fill_hull: bool = False,
    progress: bool = True,
) -> CrystalDataset:
    """Crystals of a public data set or of any file or folder, symmetrised in parallel once and cached.

    What fails is left out, counted in one warning, listed in ``failures`` and in a CSV file of the cache.

    Args:
        name_or_path: mp_20, perov_5, carbon_24, mpts_52, zeolites, or a path that ``reading.iterate_rows``
            understands.
        split: train, val or test: of a public data set, or of a folder of ``<split>.csv`` files. Any other
            file or folder is one training set; with None a path is read whole.
        data_dir: folder that holds ``<name>/<split>.csv(.gz)``; default ``AUTOPERI_DATA``, else download.
        workers: processes that read and symmetrise.
        config: tolerances of the symmetry search.
        fill_hull: also give the missing ``e_above_hull`` (``fill_e_above_hull``), from the hull of the
            formation energies of train and val, so that training sees nothing of test; for test, of all
            splits. Prepares those splits too, as far as they exist.
        progress: show a progress bar while preparing.

    Raises:
        ValueError, FileNotFoundError, DownloadError, ReadError: no such data, or no such split of it; the
            message says what to do.
        ValueError: not one crystal could be used.
    """
    if fill_hull:
        return _filled(name_or_path, split, data_dir, workers, config, progress)
    file = _source(name_or_path, split, data_dir)
    arrays, report = prepare(file, cache_folder(), config or SymmetriseConfig(), workers, progress)
    failures = [tuple(row) for row in arrays["failures"].tolist()]
    listed = f"; all are listed in {report}" if report.exists() else ""
    first = f", first {failures[0][0]}: {failures[0][2]}{listed}" if failures else ""
    if not len(arrays["ids"]):
        raise ValueError(f"expected crystals in {file}: none could be used{first}")
    if failures:
        items = len(failures) + len(arrays["ids"])
        warnings.warn(f"{len(failures)} of {items} crystals of {file.name} are left out{first}", stacklevel=2)
    labels = dict(zip(arrays["label_names"].tolist(), arrays["labels"].T, strict=True))
    missing = np.full(len(arrays["ids"]), np.nan)
    flat = {
        key: torch.from_numpy(arrays[key])
        for key in ("space_group", "lattice_coords", "site_start", "wyckoff", "species", "free")
    }
    public = str(name_or_path) in DATASETS
    dataset = CrystalDataset(
        **flat,
        ids=arrays["ids"],
        labels={**{key: missing.copy() for key in DEFAULT_CONDITIONS}, **labels},
        symprec=arrays["symprec"],
        failures=failures,
        name=f"{name_or_path}/{split}" if public else str(file),
    )
    folds = split_folds(str(name_or_path), split) if public and split else None
    if folds is None:
        return dataset
    return dataset.select([i for i, name in enumerate(dataset.ids) if fold(str(name)) in folds])


def fill_e_above_hull(datasets: Sequence[CrystalDataset], overwrite: bool = False) -> list[CrystalDataset]:
    """Give every crystal with a formation energy an energy above the hull of all of them, eV/atom.

    The hull of the labelled rows of MP-20 reproduces the official values to about 2 meV/atom. Rows without
    a formation energy stay NaN.

    Args:
        datasets: splits of one data set, with formation energies of one and the same kind.
        overwrite: also replace the values that are there.
    """
    compositions = [d.compositions() for d in datasets]
    energies = [d.labels["formation_energy"] for d in datasets]
    hull = Hull([c for part in compositions for c in part], np.concatenate(energies))
    filled = []
    for dataset, amounts, energy in zip(datasets, compositions, energies, strict=True):
        values = dataset.labels["e_above_hull"].copy()
        for i in np.flatnonzero(np.isfinite(energy) & (np.isnan(values) | overwrite)):
            values[i] = max(0.0, hull.above(amounts[i], energy[i]))
        filled.append(replace(dataset, labels={**dataset.labels, "e_above_hull": values}))
    return filled


def _filled(
    name_or_path: str | Path,
    split: str | None,
    data_dir: str | Path | None,
    workers: int,
    config: SymmetriseConfig | None,
    progress: bool,
) -> CrystalDataset:
    """A split with ``fill_e_above_hull``, kept in the cache under a hash of all that the labels depend on."""
    if split not in SPLITS:
        raise ValueError(f"expected a split among {', '.join(SPLITS)}: got {split!r}")
    beside = [s for s in (SPLITS if split == "test" else SPLITS[:2]) if s != split]
    existing = [split, *(s for s in beside if _exists(name_or_path, s, data_dir))]
    parts = [
        load_dataset(name_or_path, s, data_dir, workers=workers, config=config, progress=progress)
        for s in existing
    ]
    digest = hashlib.sha256(b"hull 2")
    for part in parts:
        digest.update(part.content_hash().encode())

    def read(file: Path) -> np.ndarray:
        values = np.load(file, allow_pickle=False)
        if values.shape != (len(parts[0]),):
            raise ValueError(f"expected {len(parts[0])} values: got {values.shape}")
        return values

    def write(file: Path, values: np.ndarray) -> None:
        with file.open("wb") as stream:
            np.save(stream, values, allow_pickle=False)

    file = cache_folder() / "hull" / f"{digest.hexdigest()[:16]}.npy"
    values = cached(file, read, lambda: fill_e_above_hull(parts)[0].labels["e_above_hull"], write)
    return replace(parts[0], labels={**parts[0].labels, "e_above_hull": values})


def _exists(name_or_path: str | Path, split: str, data_dir: str | Path | None) -> bool:
    """Whether a split beside the one asked for is there; one that cannot be downloaded is an error."""
    try:
        _source(name_or_path, split, data_dir)
    except FileNotFoundError:
        return False
    return True


def _source(name_or_path: str | Path, split: str | None, data_dir: str | Path | None) -> Path:
    path = Path(name_or_path).expanduser()
    if str(name_or_path) in DATASETS and split:
        return dataset_file(str(name_or_path), split, data_dir)
    if not path.exists():
        raise ValueError(
            f"expected a data set among {', '.join(DATASETS)}, or a file or folder: got "
            f"{str(name_or_path)!r}, which does not exist"
        )
    if not split:
        return path
    files = [f for name in SPLITS for x in (".csv.gz", ".csv") if (f := path / f"{name}{x}").exists()]
    for file in files:
        if file.name.startswith(f"{split}."):
            return file
    if files or split != "train":
        raise FileNotFoundError(
            f"expected {split}.csv or {split}.csv.gz in {path}: found "
            f"{', '.join(f.name for f in files) or 'no splits'}; split=None reads it whole"
        )
    return path
