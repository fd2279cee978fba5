"""Energies and relaxed geometries from the universal potential CHGNet 0.3.0 (arXiv:2302.14231)."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from pymatgen.core import Structure

MODEL_NAME = "0.3.0"


@dataclass(frozen=True)
class RelaxationSettings:
    """When a relaxation counts as converged and when it gives up.

    Attributes:
        fmax: largest force (and cell force) component left, eV/Å.
        max_steps: steps after which the relaxation stops unconverged.
        optimizer: name of the ASE optimiser.
    """

    fmax: float = 0.1
    max_steps: int = 200
    optimizer: str = "FIRE"


@dataclass(frozen=True)
class Relaxed:
    """Where a relaxation ended.

    Attributes:
        structure: final geometry.
        energy_per_atom: CHGNet energy of it, eV/atom (no element references subtracted).
        steps: optimiser steps taken.
        converged: True when `fmax` was reached within `max_steps`.
    """

    structure: Structure
    energy_per_atom: float
    steps: int
    converged: bool


@cache
def _chgnet(device: str | None) -> Any:
    """The shipped CHGNet weights, loaded once per process."""
    from chgnet.model.model import CHGNet

    with contextlib.redirect_stdout(io.StringIO()):
        return CHGNet.load(model_name=MODEL_NAME, use_device=device, verbose=False)


def static_energies(
    structures: Sequence[Structure], batch_size: int = 32, device: str | None = "cpu"
) -> Iterator[float]:
    """Yield the CHGNet energy of each structure as it stands, eV/atom.

    A structure the potential cannot represent (an isolated atom, an element it does not know)
    yields NaN; the others of its batch are unaffected.
    """
    model = _chgnet(device)
    for start in range(0, len(structures), batch_size):
        batch = list(structures[start : start + batch_size])
        try:
            results = model.predict_structure(batch, task="e", batch_size=batch_size)
            results = results if isinstance(results, list) else [results]
            yield from (float(r["e"]) for r in results)
        except Exception:
            for structure in batch:
                yield _single_energy(model, structure)


def _single_energy(model: Any, structure: Structure) -> float:
    try:
        return float(model.predict_structure(structure, task="e")["e"])
    except Exception:
        return float("nan")


def relax(
    structure: Structure,
    settings: RelaxationSettings = RelaxationSettings(),
    device: str | None = "cpu",
) -> Relaxed:
    """Relax atoms and cell together with CHGNet.

    Raises whatever CHGNet or ASE raise when the structure cannot be treated (for instance atoms
    with no neighbour within 6 Å): the caller names the failure.
    """
    from chgnet.model.dynamics import StructOptimizer

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its device every time
        optimizer = StructOptimizer(
            model=_chgnet(device), optimizer_class=settings.optimizer, use_device=device
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = optimizer.relax(
            structure.copy(),
            fmax=settings.fmax,
            steps=settings.max_steps,
            verbose=False,
            assign_magmoms=False,
        )
    trajectory: Any = result["trajectory"]
    final = result["final_structure"]
    if not isinstance(final, Structure):
        raise TypeError(f"expected a relaxed Structure, got {type(final).__name__}")
    energy = float(trajectory.energies[-1]) / len(final)
    # Without the potential's site properties, and in the double precision that JSON can hold.
    cell, frac = (np.asarray(a, dtype=float) for a in (final.lattice.matrix, final.frac_coords))
    final = Structure(cell, final.species, frac)
    if not np.isfinite(energy):
        raise ValueError(f"relaxation of {structure.formula} ended at energy {energy} eV/atom")
    steps = max(0, len(trajectory.energies) - 2)
    return Relaxed(final, energy, steps, converged=steps < settings.max_steps)
