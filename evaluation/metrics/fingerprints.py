"""CrystalNN site fingerprints and Magpie composition features of crystals, cached, as in CDVAE's coverage."""

import hashlib
import json
import signal
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pymatgen.core import Composition, Structure

from autoperi.data.cache import cache_folder, required, versions, warn_not_kept
from autoperi.data.workers import mapped
from evaluation.facts.symmetry import equivalent_atoms

SITE_FEATURES, COMPOSITION_FEATURES = 61, 132
_SHIPPED_SCALE = Path(__file__).with_name("magpie_mp20_scale.json")
_SYMPREC = 1e-3  # Å; atoms equivalent this closely differ by about 0.002 in any site feature
_LAYOUT = 1  # raise it when the vectors change: old caches are then left alone


@dataclass(frozen=True)
class CompositionScale:
    """Mean and standard deviation by which composition features are standardised.

    Attributes:
        mean: of each Magpie feature, [132].
        std: of each Magpie feature, [132].
        source: the compositions it was computed from.
    """

    mean: np.ndarray
    std: np.ndarray
    source: str

    @classmethod
    def load(cls, path: Path = _SHIPPED_SCALE) -> "CompositionScale":
        """The shipped scale, of the MP-20 train split.

        CDVAE standardises by constants of 20,690 compositions that it does not name. Their standard
        deviations are 0.84 to 1.25 times these, and of 400 MP-20 formulas 95.8% instead of 95.5%
        have one of 400 others within its cut-off of 10.
        """
        stored = json.loads(path.read_text())
        return cls(np.array(stored["mean"]), np.array(stored["std"]), stored["source"])

    @classmethod
    def fit(cls, features: np.ndarray, source: str) -> "CompositionScale":
        """Scale of raw features [n, 132], missing values left out; a constant feature is not scaled."""
        std = np.nanstd(features, axis=0)
        return cls(np.nanmean(features, axis=0), np.where(std > 0, std, 1.0), source)

    def save(self, path: Path) -> None:
        """Write as JSON with seven significant digits."""
        rounded = {
            name: [float(f"{x:.7g}") for x in values]
            for name, values in (("mean", self.mean), ("std", self.std))
        }
        path.write_text(json.dumps({"source": self.source, **rounded}) + "\n")

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Standardised features; a missing one becomes the mean, as in CDVAE."""
        return np.nan_to_num((features - self.mean) / self.std, nan=0.0)


@dataclass(frozen=True)
class FingerprintSettings:
    """How fingerprints are computed and kept.

    Attributes:
        cache_dir: folder of the cache; by default `evaluation` in the cache folder.
        workers: processes that compute.
        seconds: most processor time for one crystal, where the system has timers of it; a crystal that
            takes longer fails.
    """

    cache_dir: Path | None = None
    workers: int = 1
    seconds: float = 60.0


@dataclass(frozen=True)
class Fingerprints:
    """Vectors of the crystals that have them.

    Attributes:
        index: position of each in the input, [m].
        structure: mean CrystalNN fingerprint, [m, 61].
        composition: standardised Magpie features, [m, 132].
        failures: position in the input -> why there is no fingerprint.
    """

    index: np.ndarray
    structure: np.ndarray
    composition: np.ndarray
    failures: Mapping[int, str]


def fingerprints(
    structures: Sequence[Structure],
    settings: FingerprintSettings = FingerprintSettings(),
    scale: CompositionScale | None = None,
) -> Fingerprints:
    """Structure and composition fingerprints as CDVAE takes them (arXiv:2110.06197, appendix).

    Structure: matminer's CrystalNNFingerprint "ops" (doi:10.1039/C9RA07755C), averaged over the
    sites; a site stands for those equivalent to it by symmetry within 0.001 Å. Composition:
    matminer's Magpie features (doi:10.1038/npjcompumats.2016.28), standardised by `scale`.
    Each crystal is computed once and found in the cache afterwards; a crystal that raises or runs
    out of time is named in `failures` and left out.

    Raises:
        ImportError: when matminer is not installed.
    """
    from rich.progress import track

    keys = [_key(s) for s in structures]
    with closing(_open(settings)) as cache:
        found = _stored(cache, keys)
        missing = list({key: k for k, key in enumerate(keys) if key not in found}.values())
        results = _compute([structures[k] for k in missing], settings)
        failed: dict[bytes, str] = {}
        shown = track(results, total=len(missing), description="fingerprints", disable=not missing)
        for done, (k, result) in enumerate(zip(missing, shown, strict=True), start=1):
            if isinstance(result, str):
                failed[keys[k]] = result
                continue
            found[keys[k]] = result
            cache.execute("INSERT OR REPLACE INTO fingerprint VALUES (?, ?)", (keys[k], result.tobytes()))
            if done % 25 == 0:
                cache.commit()
        cache.commit()
    index = np.array([k for k, key in enumerate(keys) if key in found], dtype=int)
    rows = np.array([found[keys[k]] for k in index]).reshape(len(index), SITE_FEATURES + COMPOSITION_FEATURES)
    scale = CompositionScale.load() if scale is None else scale
    failures = {k: failed[key] for k, key in enumerate(keys) if key in failed}
    return Fingerprints(index, rows[:, :SITE_FEATURES], scale.apply(rows[:, SITE_FEATURES:]), failures)


def composition_features(composition: Composition | str) -> np.ndarray:
    """Raw Magpie features [132] of a composition; NaN where an element lacks a property."""
    magpie = _featurizers()[1]
    return np.array(magpie.featurize(Composition(composition)), dtype=float)


def _site_average(structure: Structure) -> np.ndarray:
    """Mean over sites of the CrystalNN fingerprint, one evaluation per set of equivalent sites."""
    crystal_nn = _featurizers()[0]
    orbits = equivalent_atoms(structure, _SYMPREC)
    sites, counts = np.unique(orbits, return_counts=True)
    rows = np.array([crystal_nn.featurize(structure, int(site)) for site in sites], dtype=float)
    return np.average(rows, axis=0, weights=counts)


@cache
def _featurizers() -> tuple[Any, Any]:
    """Imported here: matminer takes seconds to import, and only this stage needs it."""
    required("matminer", "coverage")
    from matminer.featurizers.composition.composite import ElementProperty  # type: ignore
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint  # type: ignore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            CrystalNNFingerprint.from_preset("ops"),
            ElementProperty.from_preset("magpie", impute_nan=False),
        )


def _compute(structures: list[Structure], settings: FingerprintSettings) -> Iterator[np.ndarray | str]:
    if not structures:
        return
    _featurizers()  # once, before any process is forked, so that a missing package is said plainly
    compute = partial(_compute_one, seconds=settings.seconds)
    yield from mapped(compute, structures, settings.workers, lambda _, reason: reason, together=4)


def _compute_one(structure: Structure, seconds: float) -> np.ndarray | str:
    """Both fingerprints one after the other, or the reason why there are none."""
    try:
        with _time_limit(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bare = Structure(structure.lattice, structure.species, structure.frac_coords)
            site = _site_average(bare)
            composition = composition_features(bare.composition)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    if not np.isfinite(site).all():
        return "the site fingerprint is not finite"
    return np.concatenate([site, composition])


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """TimeoutError after so much processor time; no limit outside the main thread or without SIGVTALRM.

    A machine busy with other work, or a process that is stopped for a while, then loses no crystal.
    """
    if not hasattr(signal, "SIGVTALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"no fingerprint within {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _key(structure: Structure) -> bytes:
    """Hash of the crystal as given, to a millionth of an Å or of a cell edge."""
    digest = hashlib.sha256(np.asarray(structure.atomic_numbers, dtype=np.int16).tobytes())
    digest.update((structure.lattice.matrix.round(6) + 0.0).tobytes())
    digest.update((structure.frac_coords.round(6) + 0.0).tobytes())
    return digest.digest()


def _open(settings: FingerprintSettings) -> sqlite3.Connection:
    """The cache of these library versions; SQLite keeps it whole when a run is killed."""
    folder = settings.cache_dir or cache_folder() / "evaluation"
    made_with = "-".join(f"{name}{version}" for name, version in versions("matminer", "pymatgen").items())
    file = folder / f"fingerprints-{_LAYOUT}-{made_with}.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _connected(file)
    except (OSError, sqlite3.OperationalError) as error:
        warn_not_kept(file, error)
        return _connected(":memory:")
    except sqlite3.DatabaseError as error:
        warnings.warn(f"{file} is damaged ({error}): it is made again", stacklevel=2)
        file.unlink()
        return _connected(file)


def _connected(file: Path | str) -> sqlite3.Connection:
    """A table of fingerprints that can be read and written.

    Raises:
        sqlite3.OperationalError: it cannot be opened or written.
        sqlite3.DatabaseError: it is no database, or a damaged one.
    """
    cache = sqlite3.connect(file, timeout=60)
    try:
        cache.execute("CREATE TABLE IF NOT EXISTS fingerprint (key BLOB PRIMARY KEY, vector BLOB)")
        (found,) = cache.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        cache.execute("BEGIN IMMEDIATE")  # an error where it cannot be written
        cache.rollback()
    except sqlite3.Error:
        cache.close()
        raise
    return cache


def _stored(cache: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
    found: dict[bytes, np.ndarray] = {}
    wanted = list(set(keys))
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, vector FROM fingerprint WHERE key IN ({marks})"
        for key, vector in cache.execute(query, part):
            if len(vector) == 8 * (SITE_FEATURES + COMPOSITION_FEATURES):
                found[key] = np.frombuffer(vector, dtype=float)
    return found
