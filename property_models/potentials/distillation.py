"""Configurations around real crystals, labelled by a teacher, and the training of a pupil on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.networks.layers import sum_by
from autoperi.training.fit import BatchData, FitConfig, Training, fit, seeded
from autoperi.training.states import averaged_weights
from property_models.potentials.distilled import DistilledConfig, DistilledPotential
from property_models.potentials.potential import EnergyForcesStress, Potential, element_weights

_CRYSTAL = ("space_group", "lattice_coords", "crystal", "wyckoff", "species", "free")
_LABELS = ("energy", "forces", "stress")
_WILDEST = 10.0
"""eV/Å: a configuration with a larger force tells nothing about crystals."""


@dataclass(frozen=True)
class Disturbance:
    """How far from its crystal a configuration may be.

    Attributes:
        rattled: share of configurations in which every atom moves by itself; in the others the free
            coordinates move and symmetry stays.
        displacement: largest standard deviation of the moves, Å; each configuration draws its own.
        strain: largest standard deviation of the logarithmic strains, drawn likewise.
        substituted: share of configurations in which one element is another of the data set's.
        most_atoms: crystals with more atoms are only moved within their symmetry.
    """

    rattled: float = 0.5
    displacement: float = 0.12
    strain: float = 0.03
    substituted: float = 0.25
    most_atoms: int = 20


def disturbed(
    crystals: Sequence[Crystal], n: int, seed: int, how: Disturbance | None = None, first: int = 0
) -> list[Crystal]:
    """Configurations ``first`` to ``first + n - 1`` around crystals; number i depends on (seed, i) alone."""
    how = how or Disturbance()
    known = np.unique(np.concatenate([c.species for c in crystals]))
    numbers = range(first, first + n)
    return [_disturbed(crystals, known, np.random.default_rng([seed, i]), how) for i in numbers]


def _disturbed(
    crystals: Sequence[Crystal], known: np.ndarray, rng: np.random.Generator, how: Disturbance
) -> Crystal:
    crystal = crystals[int(rng.integers(len(crystals)))]
    if rng.random() < how.substituted:
        old = rng.choice(np.unique(crystal.species))
        species = np.where(crystal.species == old, rng.choice(known), crystal.species)
        crystal = replace(crystal, species=species)
    alone = rng.random() < how.rattled and crystal.n_atoms <= how.most_atoms
    if alone:
        crystal = Crystal.without_symmetry(*crystal.expand())
    batch = CrystalBatch.from_crystals([crystal])
    moves = how.displacement * rng.random() * torch.from_numpy(rng.normal(size=(batch.n_sites, 3)))
    strain = how.strain * rng.random() * torch.from_numpy(rng.normal(size=(1, 6)))
    free = (batch.free + batch.tangent(moves)) % 1.0 * batch.free_mask()
    coords = batch.lattice_coords + strain * batch.lattice_mask()
    return replace(crystal, free=free.numpy(), lattice_coords=coords[0].numpy(), properties={})


@dataclass(frozen=True)
class Configurations:
    """Crystals with energies (eV/atom), forces on their sites (eV/Å) and stresses (eV/Å³)."""

    crystals: CrystalBatch
    energy: Float[Tensor, "crystals"]
    forces: Float[Tensor, "sites 3"]
    stress: Float[Tensor, "crystals 3 3"]

    @classmethod
    def labelled(
        cls, crystals: Sequence[Crystal], teacher: Potential, batch_size: int = 32, *, progress: bool = True
    ) -> "Configurations":
        """What the teacher says of each; those with a force beyond 10 eV/Å, or none at all, are left out."""
        parts = []
        starts = range(0, len(crystals), batch_size)
        for i in track(starts, "Asking the teacher", transient=True, disable=not progress):
            batch = CrystalBatch.from_crystals(crystals[i : i + batch_size]).to(dtype=torch.float32)
            with torch.no_grad():
                found = teacher(batch)
            parts.append(cls(batch, found.energy, found.forces, found.stress).within_force_limit())
        return cls.joined(parts)

    @classmethod
    def joined(cls, parts: "Sequence[Configurations]") -> "Configurations":
        """Several sets one after the other; raises ValueError where nothing is left of them."""
        if not sum(len(part) for part in parts):
            raise ValueError(f"expected configurations with forces below {_WILDEST} eV/Å: got none")
        counts = np.cumsum([0, *(len(part) for part in parts)])
        batches = [part.crystals for part in parts]
        crystals = CrystalBatch(**{name: torch.cat([getattr(b, name) for b in batches]) for name in _CRYSTAL})
        owner = torch.cat([b.crystal + int(k) for b, k in zip(batches, counts, strict=False)])
        labels = (torch.cat([getattr(part, name) for part in parts]) for name in _LABELS)
        return cls(replace(crystals, crystal=owner), *labels)

    def within_force_limit(self) -> "Configurations":
        """Those whose forces are finite and bearable."""
        norm = self.forces.norm(dim=-1).nan_to_num(torch.inf)
        worst = norm.new_zeros(len(self)).scatter_reduce(0, self.crystals.crystal, norm, "amax")
        return self.select((worst < _WILDEST).nonzero().squeeze(-1))

    def __len__(self) -> int:
        """Number of configurations."""
        return len(self.energy)

    def select(self, index: Tensor) -> "Configurations":
        """Some of them."""
        rows, _ = self.crystals.site_rows(index)
        return Configurations(
            self.crystals.select(index), self.energy[index], self.forces[rows], self.stress[index]
        )

    def to(self, device: torch.device) -> "Configurations":
        """Move everything."""
        labels = (x.to(device) for x in (self.energy, self.forces, self.stress))
        return Configurations(self.crystals.to(device), *labels)

    def save(self, file: Path) -> None:
        """Write everything as safetensors."""
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: getattr(self.crystals, name) for name in _CRYSTAL}
        save_file({**tensors, **{name: getattr(self, name) for name in _LABELS}}, file)

    @classmethod
    def read(cls, file: Path) -> "Configurations":
        """What ``save`` wrote."""
        tensors = load_file(file)
        return cls(CrystalBatch(**{n: tensors[n] for n in _CRYSTAL}), *(tensors[n] for n in _LABELS))


@dataclass(frozen=True)
class DistillationWeights:
    """Weights of the terms of the loss.

    Attributes:
        energy: per eV/atom.
        force: per eV/Å of a mean component.
        stress: per eV/Å³ of a mean component.
    """

    energy: float = 10.0
    force: float = 3.0
    stress: float = 50.0


def imitation_errors(found: EnergyForcesStress, wanted: Configurations) -> dict[str, Tensor]:
    """Mean absolute errors: ``energy`` (eV/atom), ``force`` (eV/Å, a component), ``stress`` (eV/Å³)."""
    batch = wanted.crystals
    atoms = batch.multiplicity().to(found.forces)
    force = (found.forces - wanted.forces).abs().mean(-1)
    return {
        "energy": (found.energy - wanted.energy).abs().mean(),
        "force": (force * atoms).sum() / atoms.sum(),
        "stress": (found.stress - wanted.stress).abs().mean(),
    }


class DistillationTraining(Training):
    """A pupil learns its teacher's energies, forces and stresses at once."""

    network: DistilledPotential

    def __init__(self, network: DistilledPotential, config: FitConfig, weights: DistillationWeights) -> None:
        super().__init__(network, config)
        self.weights = weights

    def loss(self, batch: Configurations, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms of one batch; nothing is drawn."""
        del generator
        terms = imitation_errors(self.network(batch.crystals), batch)
        w = self.weights
        total = w.energy * terms["energy"] + w.force * terms["force"] + w.stress * terms["stress"]
        return {"total": total, **terms}


def distil(
    train: Configurations,
    val: Configurations,
    out: Path,
    fitting: FitConfig,
    config: DistilledConfig | None = None,
    weights: DistillationWeights | None = None,
    start: DistilledPotential | None = None,
) -> DistilledPotential:
    """Train a pupil, or go on where a run in this folder was interrupted; the averaged weights of its end.

    Args:
        train: what it learns.
        val: watched only.
        out: folder of logs and resumable checkpoints.
        fitting: how it is fitted.
        config: size of the network, with ``start`` its number of layers alone.
        weights: of the loss.
        start: a trained pupil to begin from.
    """
    config = config or DistilledConfig()
    if start is None:
        with seeded(fitting.seed):
            network = DistilledPotential(config)
        network.standardise(atomic_fractions(train.crystals), train.energy, train.forces)
    else:
        with seeded(fitting.seed):
            network = start.deepened(config.layers)
    data = BatchData(train, val, fitting.batch_size, fitting.seed)
    fit(DistillationTraining(network, fitting, weights or DistillationWeights()), data, fitting, out)
    network.load_state_dict(averaged_weights(out / "last.ckpt"))
    return network.eval()


def atomic_fractions(batch: CrystalBatch) -> Float[Tensor, "crystals elements"]:
    """Share of each element 1-94 among the atoms of each crystal."""
    atoms = element_weights(batch) * batch.multiplicity()[:, None]
    return sum_by(atoms, batch.crystal, batch.n_crystals) / batch.n_atoms()[:, None]
