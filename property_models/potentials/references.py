"""Element references that make formation energies out of CHGNet's energies.

CHGNet was trained on total energies with the Materials Project's corrections partly in them, so the project's
elemental energies leave a bias. The references here are fitted: E/N - Σ x_el μ_el is the labelled formation
energy of MP-20 train rows, by ridge regression about CHGNet's own references, which rules for the few
elements that MP-20 lacks. To fit again: ``python -m property_models.potentials.references``.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from autoperi.crystals.crystal import CrystalBatch
from autoperi.data.dataset import CrystalDataset, load_dataset
from autoperi.networks.layers import sum_by
from property_models.potentials.chgnet_potential import VERSION, CHGNetPotential
from property_models.potentials.potential import ELEMENTS

_FILE = Path(__file__).with_name("element_references.json")
_RIDGE = 0.01
"""Weight of the squared distance of a reference from CHGNet's own, against squared errors in eV/atom."""


@cache
def element_references() -> Float[Tensor, "elements"]:
    """The shipped references of the elements 1-94, eV/atom (float64)."""
    return torch.tensor(json.loads(_FILE.read_text())["energies"], dtype=torch.float64)


def composition(
    batch: CrystalBatch, species: Float[Tensor, "sites elements"]
) -> Float[Tensor, "crystals elements"]:
    """Atomic fractions of the elements, differentiable in soft species."""
    share = batch.multiplicity().to(species) / batch.n_atoms()[batch.crystal]
    return sum_by(share[:, None] * species, batch.crystal, batch.n_crystals)


@torch.no_grad()
def energies_and_labels(
    dataset: CrystalDataset, rows: np.ndarray, potential: CHGNetPotential, batch_size: int = 64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic fractions [rows, 94], CHGNet's energies and labelled formation energies [rows], eV/atom.

    Rows with an element beyond plutonium or without a label are left out.
    """
    found = []
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        heaviest = [int(dataset[int(i)].species.max()) for i in part]
        part = part[np.array(heaviest) <= ELEMENTS]
        batch = dataset.batch(part).to(dtype=torch.float32)
        one_hot = torch.nn.functional.one_hot(batch.species - 1, ELEMENTS).float()
        energy = potential.energy(batch, one_hot)
        labels = dataset.labels["formation_energy"][part]
        found.append((composition(batch, one_hot).double().numpy(), energy.double().numpy(), labels))
    fractions, energies, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    known = np.isfinite(labels)
    return fractions[known], energies[known], labels[known]


def fit_references(
    fractions: Float[np.ndarray, "rows 94"],
    energies: Float[np.ndarray, "rows"],
    labels: Float[np.ndarray, "rows"],
    prior: Float[np.ndarray, "94"],
) -> Float[np.ndarray, "94"]:
    """References in eV/atom: minimise Σ (E - x·μ - F)² + ridge·|μ - μ_prior|² over μ."""
    gram = fractions.T @ fractions + _RIDGE * np.eye(fractions.shape[1])
    return prior + np.linalg.solve(gram, fractions.T @ (energies - labels - fractions @ prior))


def _fit_on_mp20(n_train: int = 6000, n_val: int = 1000, seed: int = 0) -> None:
    potential = CHGNetPotential()
    rng = np.random.default_rng(seed)
    parts = []
    for split, n in (("train", n_train), ("val", n_val)):
        dataset = load_dataset("mp_20", split)
        parts.append(energies_and_labels(dataset, rng.permutation(len(dataset))[:n], potential))
    prior = potential.model.composition_model.fc.weight[0].double().numpy()
    fractions, energies, labels = parts[0]
    fitted = fit_references(fractions, energies, labels, prior)
    fractions, energies, labels = parts[1]
    error = energies - fractions @ fitted - labels
    about = {
        "potential": f"CHGNet {VERSION}, energies at the DFT geometry",
        "target": "MP-20 train formation_energy_per_atom (Materials Project, CC BY 4.0)",
        "rows": len(parts[0][1]),
        "seed": seed,
        "val_rows": len(error),
        "val_mae": round(float(np.abs(error).mean()), 4),
        "val_bias": round(float(error.mean()), 4),
    }
    _FILE.write_text(json.dumps({"about": about, "energies": fitted.round(4).tolist()}) + "\n")
    print(about)


if __name__ == "__main__":
    _fit_on_mp20()
