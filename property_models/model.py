"""Trained property models: load by the name of a property, predict any structures."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from autoperi.crystals.crystal import MAX_Z, Crystal, CrystalBatch
from autoperi.crystals.device import usable_device
from autoperi.crystals.labels import Window
from autoperi.crystals.symmetry import symmetrise
from autoperi.networks.checkpoint import (
    CheckpointError,
    find_checkpoint,
    half_precision,
    readable,
    restore,
    write_checkpoint,
)
from property_models.graph.site_graph import SiteGraph, site_graph
from property_models.networks.ensemble import HULL_TARGET, Ensemble, EnsembleConfig
from property_models.networks.targets import TARGETS, unknown_name

if TYPE_CHECKING:
    import pandas as pd
    from ase import Atoms
    from pymatgen.core import Structure

PRETRAINED = Path(__file__).with_name("pretrained")
"""Shipped ensembles: one folder for each target and family."""
MARK = "members"
"""Tells the configuration of such a checkpoint from others."""
_UNKNOWN = "unknown: the checkpoint does not hold the elements and bonds that it was trained on"


class PropertyModel:
    """A calibrated ensemble behind one verb.

    Attributes:
        ensemble: the networks, for gradients: call it with a ``SiteGraph``.
        targets: what ``predict`` tells, in that order.
        name: of the checkpoint.
        sha256: of its weights.
        about: provenance and figures.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        targets: tuple[str, ...],
        name: str = "",
        sha256: str = "",
        about: dict[str, Any] | None = None,
    ) -> None:
        self.ensemble, self.targets = ensemble.eval(), targets
        self.name, self.sha256, self.about = name, sha256, about or {}

    def describe(self) -> dict[str, str]:
        """What this checkpoint is, for people: targets, sizes, hash, provenance with held-out figures."""
        config = self.ensemble.config
        size = sum(p.numel() for p in self.ensemble.parameters()) // config.members
        units = [f"{t} ({TARGETS[t].unit})" if t in TARGETS else t for t in self.targets]
        return {
            "predicts": ", ".join(units),
            "family": config.family,
            "networks": f"{config.members} of {size:,} parameters, convolution {config.network.convolution}",
            **({"corrects": f"the shipped potential, {config.potential[:12]}"} if config.potential else {}),
            "sha256": self.sha256,
            **readable(self.about),
        }

    def only(self, targets: Sequence[str]) -> "PropertyModel":
        """The same model, telling some of its targets; raises ValueError for others, naming the nearest."""
        for target in targets:
            if target not in self.ensemble.targets:
                raise unknown_name(target, self.ensemble.targets, f"a target of {self.name}")
        return PropertyModel(self.ensemble, tuple(targets), self.name, self.sha256, self.about)

    def fast(self) -> "PropertyModel":
        """The first network of the ensemble by itself: two to three times faster, a little less exact.

        Its uncertainties are calibrated by themselves; the flag for what is out of the domain goes by the
        latent distance alone, since one network does not disagree with itself.
        """
        return PropertyModel(self.ensemble.first(), self.targets, self.name, self.sha256, self.about)

    def predict(
        self,
        structures: "Sequence[Structure | Crystal | Atoms]",
        batch_size: int = 256,
        progress: Callable[[int], None] | None = None,
        workers: int = 1,
    ) -> "pd.DataFrame":
        """Values of structures, one row each, in their order.

        Columns are ``value``, ``uncertainty`` (of 90% intervals: ± 1.645 of it), ``out_of_domain`` and
        ``reason`` where the model has one target, else ``<target>``, ``<target>_uncertainty``,
        ``<target>_out_of_domain``, ``<target>_reason``; and ``error``, which says why something in the list
        has no values. Units as in ``TARGETS``. ``out_of_domain`` is missing (NA) where there is no value, and
        where nothing speaks against it but the checkpoint does not hold the elements and bonds that it was
        trained on.

        Args:
            structures: pymatgen structures and periodic ASE atoms, which are symmetrised first, or crystals.
            batch_size: does not change the result.
            progress: told how many structures were just finished.
            workers: threads that work on batches; best with one torch thread (``torch.set_num_threads(1)``).
        """
        import pandas as pd

        told, errors = self._told(structures, self._columns(), self.of_batch, batch_size, progress, workers)
        table = pd.DataFrame(told)
        for name in told:
            if name.endswith("reason"):
                table[name] = [words or "" for words in told[name]]
            else:
                table[name] = table[name].astype("boolean" if name.endswith("out_of_domain") else float)
        return table.assign(error=errors)

    def chances(
        self,
        structures: "Sequence[Structure | Crystal | Atoms]",
        windows: Sequence[Window],
        batch_size: int = 256,
        workers: int = 1,
    ) -> Float[np.ndarray, "structures windows"]:
        """How likely the value of each structure lies in each window, by the calibrated distribution.

        Of band gaps that is a mixture of metals and of insulators with a Laplace distribution around their
        gap. NaN where ``predict`` has an error.

        Raises:
            ValueError: a model of several targets; take one with ``only``.
        """
        if len(self.targets) != 1:
            raise ValueError(f"expected a model of one target (see only): got {', '.join(self.targets)}")
        log = self.targets[0] in self.ensemble.config.network.log
        ends = np.array([(window.low, window.high) for window in windows], float).reshape(-1, 2)
        if log:
            with np.errstate(divide="ignore"):
                ends = np.log10(ends.clip(min=0))
        column = self.ensemble.targets.index(self.targets[0])

        @torch.no_grad()
        def within(batch: CrystalBatch) -> dict[str, np.ndarray]:
            told = self.ensemble(self._graph(batch)).distribution
            shares = [told.within(*pair)[:, column].double().cpu().numpy() for pair in ends.tolist()]
            return {str(k): share for k, share in enumerate(shares)}

        names = [str(k) for k in range(len(ends))]
        found, _ = self._told(structures, names, within, batch_size, None, workers)
        return np.array([found[name] for name in names], float).T.reshape(len(structures), len(ends))

    def _told(
        self,
        structures: "Sequence[Structure | Crystal | Atoms]",
        names: list[str],
        of_batch: Callable[[CrystalBatch], dict[str, np.ndarray]],
        batch_size: int,
        progress: Callable[[int], None] | None,
        workers: int,
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """Columns that ``of_batch`` tells, None where it cannot, and why it cannot."""
        crystals: list[Crystal] = []
        rows: list[int] = []
        errors = [""] * len(structures)
        for i, structure in enumerate(structures):
            try:
                crystals.append(_crystal(structure))
                rows.append(i)
            except ValueError as error:
                errors[i] = str(error)
        columns = {name: np.full(len(structures), None, object) for name in names}
        # crystals of like size together: a large one then does not slow down a batch of small ones
        order = sorted(range(len(crystals)), key=lambda k: crystals[k].n_sites * crystals[k].n_atoms)
        parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

        def told(part: list[int]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
            try:
                return [(part, of_batch(CrystalBatch.from_crystals([crystals[k] for k in part])))]
            except ValueError as error:
                if len(part) > 1:  # one of them cannot be predicted: find it
                    return [found for k in part for found in told([k])]
                errors[rows[part[0]]] = str(error)
                return []

        with ThreadPoolExecutor(workers) as pool:
            for part, answers in zip(parts, pool.map(told, parts), strict=True):
                for some, found in answers:
                    for name, values in found.items():
                        columns[name][[rows[k] for k in some]] = values
                if progress:
                    progress(len(part))
        return columns, errors

    @torch.no_grad()
    def of_batch(self, batch: CrystalBatch) -> dict[str, np.ndarray]:
        """The columns of ``predict`` for crystals that are already a batch."""
        graph = self._graph(batch)
        prediction = self.ensemble(graph)
        strangers = self.ensemble.strangers(prediction, graph)
        found: list[np.ndarray] = []
        for target in self.targets:
            column = self.ensemble.targets.index(target)
            value = prediction.value[:, column].double().cpu().numpy()
            sigma = prediction.uncertainty[:, column].double().cpu().numpy()
            if target in self.ensemble.config.network.log:
                value = 10**value
                sigma = np.log(10) * value * sigma
            reasons = strangers[column]
            unknown = None if not self.ensemble.domain.known else False
            flags = np.array([True if words else unknown for words in reasons], object)
            if unknown is None:
                reasons = [words or _UNKNOWN for words in reasons]
            found += [value, sigma, flags, np.array(reasons, object)]
        return dict(zip(self._columns(), found, strict=True))

    def _graph(self, batch: CrystalBatch) -> SiteGraph:
        parameter, network = next(self.ensemble.parameters()), self.ensemble.config.network
        return site_graph(batch.to(parameter.device, parameter.dtype), network.cutoff, network.nearest)

    def _columns(self) -> list[str]:
        if len(self.targets) == 1:
            return ["value", "uncertainty", "out_of_domain", "reason"]
        return [
            f"{target}{ending}"
            for target in self.targets
            for ending in ("", "_uncertainty", "_out_of_domain", "_reason")
        ]


def load(name_or_path: str | Path, family: str = "guide", device: str = "cpu") -> PropertyModel:
    """A trained model: the shipped one of a property, or a checkpoint folder with all its targets.

    Args:
        name_or_path: e.g. ``formation_energy``, a shipped checkpoint such as ``elastic_guide``, or a folder
            written by ``train_property``; names first, a ``Path`` is always a folder.
        family: ``guide`` steers and screens; ``judge``, of another architecture that reads other features,
            scores what the guide has chosen.
        device: where the networks run.

    Raises:
        ValueError: an unknown property; the nearest known one is named. A device that is not there.
        CheckpointError: a damaged checkpoint, or none is shipped for this property and family.
    """
    device = usable_device(device)
    name, shipped = str(name_or_path), _shipped()
    known = sorted(set(TARGETS) | {target for targets, _, _ in shipped for target in targets})
    folders = {folder.name: folder for _, _, folder in shipped}
    if isinstance(name_or_path, Path) or name in folders or (name not in known and Path(name).is_dir()):
        return _read(find_checkpoint(name_or_path, folders), None, device)
    if name not in known:
        raise unknown_name(name, known, "a property")
    for targets, of_family, folder in shipped:
        if name in targets and of_family == family:
            return _read(folder, (name,), device)
    have = sorted({f"{t} ({f})" for targets, f, _ in shipped for t in targets})
    raise CheckpointError(
        f"expected shipped weights of {name!r} in the family {family!r}: there are none (shipped: "
        f"{', '.join(have) or 'nothing'}); train your own, `autoperi train-property TABLE.csv --targets "
        f"{name} --out DIR`, and use it as the checkpoint DIR/checkpoint"
    )


def shipped(family: str = "guide") -> tuple[str, ...]:
    """Properties that a family of shipped models predicts, in the order of ``TARGETS``."""
    have = {target for targets, of_family, _ in _shipped() if of_family == family for target in targets}
    return tuple(sorted(have, key=list(TARGETS).index))


def save(ensemble: Ensemble, folder: Path, about: dict[str, Any]) -> str:
    """Write an ensemble in `half_precision`, as ``train_ensemble`` measures it, and return its sha256."""
    about = {"saved": time.strftime("%Y-%m-%d"), **about}
    return write_checkpoint(folder, half_precision(ensemble), ensemble.config, about)


def _crystal(given: "Structure | Crystal | Atoms") -> Crystal:
    """What is predicted of something in a list; raises ValueError for what is no crystal, saying why."""
    from ase import Atoms
    from pymatgen.core.structure import IStructure
    from pymatgen.io.ase import AseAtomsAdaptor

    if isinstance(given, Crystal):
        species = np.asarray(given.species)
        if not len(species) or species.min() < 1 or species.max() > MAX_Z:
            raise ValueError(
                f"expected sites with elements from 1 to {MAX_Z}: got species {species.tolist()}"
            )
        if not (np.isfinite(given.free).all() and np.isfinite(given.lattice_coords).all()):
            raise ValueError("expected finite free and lattice coordinates: got NaN or infinity")
        return given
    if isinstance(given, Atoms) and given.pbc.all():
        return symmetrise(AseAtomsAdaptor.get_structure(given))  # pyright: ignore[reportArgumentType]
    if isinstance(given, IStructure):
        return symmetrise(given)
    raise ValueError(
        f"expected a periodic structure (pymatgen Structure, ASE Atoms with pbc, or Crystal): got "
        f"{type(given).__name__}"
    )


def _read(folder: Path, targets: tuple[str, ...] | None, device: str) -> PropertyModel:
    ensemble, content = restore(folder, EnsembleConfig, Ensemble)
    ensemble.refuse_other_potential()
    names = targets or ensemble.targets
    return PropertyModel(ensemble.to(device), names, folder.name, content["sha256"], content["about"])


def _shipped() -> list[tuple[tuple[str, ...], str, Path]]:
    """Targets, family and folder of every shipped ensemble."""
    found = []
    for file in sorted(PRETRAINED.glob("*/config.json")):
        config = json.loads(file.read_text())["config"]
        targets = (*config["network"]["targets"], *([HULL_TARGET] if config.get("hull") else []))
        found.append((targets, config["family"], file.parent))
    return found
