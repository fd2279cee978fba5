"""Small random crystals and tiny networks for the tests of the networks."""

from dataclasses import replace

import numpy as np
import torch

from autoperi.crystals.crystal import Crystal, CrystalBatch
from autoperi.crystals.lattice import constrain_lattice
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.sampler import FlowModel
from autoperi.flow.velocity import VelocityConfig
from autoperi.networks.autoencoder import AutoencoderConfig
from autoperi.networks.orbit_network import OrbitNetworkConfig

TINY = OrbitNetworkConfig(width=16, vectors=4, layers=2, cutoff=4.0, radial=6)
TINY_AUTOENCODER = AutoencoderConfig(
    latent=3, irreps="6x0e+3x1o+2x2e", interactions=2, cutoff=4.0, radial=5, decoder=TINY
)
TINY_VELOCITY = VelocityConfig(latent=3, condition_width=8, network=TINY)

SOME_GROUPS = (1, 2, 4, 8, 15, 19, 31, 36, 43, 62, 63, 88, 99, 122, 136, 141)
SOME_GROUPS += (143, 146, 148, 160, 166, 176, 186, 194, 198, 205, 216, 221, 225, 227)
"""All families, centrings, polar and chiral groups among them."""


def small_crystal(space_group: int, seed: int, sites: int = 3, max_atoms: int = 16) -> Crystal:
    """A crystal of this gene's symmetry or higher: random positions, 15 Å³ per atom, atoms 0.7 Å apart."""
    table = wyckoff_table()
    first, last = table.group_start[space_group : space_group + 2].tolist()
    best, best_distance = None, 0.0
    for attempt in range(60):
        rng = np.random.default_rng([space_group, seed, attempt])
        wyckoff, left = [], max_atoms
        for _ in range(sites):
            fits = [
                p
                for p in range(first, last)
                if int(table.multiplicity[p]) <= left and (int(table.dim[p]) or p not in wyckoff)
            ]
            if not fits:
                break
            # free positions twice as often: a crystal of fixed points says little
            weights = np.array([1.0 + int(table.dim[p]) for p in fits])
            wyckoff.append(int(rng.choice(fits, p=weights / weights.sum())))
            left -= int(table.multiplicity[wyckoff[-1]])
        if not wyckoff:
            smallest = min(range(first, last), key=lambda p: int(table.multiplicity[p]))
            wyckoff = [smallest]
        crystal = _at_random(space_group, np.array(wyckoff), rng)
        distances = crystal.to_structure().distance_matrix + 9 * np.eye(crystal.n_atoms)
        if distances.min() > best_distance:
            best, best_distance = crystal, distances.min()
        if best_distance > 0.7:
            break
    assert best is not None
    return best


def _at_random(space_group: int, wyckoff: np.ndarray, rng: np.random.Generator) -> Crystal:
    table = wyckoff_table()
    dims = table.dim.numpy()[wyckoff]
    n_atoms = int(table.multiplicity.numpy()[wyckoff].sum())
    centring = 1 / float(torch.linalg.det(table.primitive[space_group]))
    coords = rng.normal(0, 0.12, 6)
    coords[5] = np.log(15 * n_atoms * centring) / 3
    family = table.family[space_group : space_group + 1]
    coords = constrain_lattice(torch.from_numpy(coords)[None], family)[0].numpy()
    if int(family) == 4:
        coords[0] = -np.log(3) / 4  # γ = 120° to the last bit of float64
    return Crystal(
        space_group=space_group,
        wyckoff=wyckoff,
        species=rng.choice([3, 8, 11, 14, 22, 26, 47, 56], size=len(wyckoff)),
        free=np.where(np.arange(3) < dims[:, None], rng.random((len(wyckoff), 3)), 0.0),
        lattice_coords=coords,
    )


def small_batch(groups=SOME_GROUPS, seed: int = 0, **kwargs) -> CrystalBatch:
    """One small crystal of each group (float64)."""
    return CrystalBatch.from_crystals([small_crystal(g, seed, **kwargs) for g in groups])


def without_symmetry(batch: CrystalBatch) -> tuple[CrystalBatch, torch.Tensor]:
    """The same crystals in gene P1, and the rotation of each: ``vector = Q @ vector_in_P1`` (columns)."""
    full = CrystalBatch.from_crystals([Crystal.without_symmetry(*c.expand()) for c in batch.to_crystals()])
    turn = torch.linalg.solve(full.lattice(), batch.lattice().double())
    return full, turn.transpose(-1, -2)


def tiny_model(dtype: torch.dtype = torch.float64, seed: int = 0) -> FlowModel:
    """A randomly initialised generator whose lattice scale fits ``small_crystal``."""
    torch.manual_seed(seed)
    model = FlowModel(TINY_AUTOENCODER, TINY_VELOCITY)
    fit_scale(model)
    return model.to(dtype).eval()


def fit_scale(model: FlowModel) -> None:
    """Set both lattice scales to the volumes of ``small_crystal``."""
    batch = small_batch()
    model.velocity.scale.fit(batch)
    model.autoencoder.decoder.scale.fit(batch)


def permuted(crystal: Crystal, order) -> Crystal:
    """The same crystal with its sites in another order."""
    order = np.asarray(order)
    return replace(
        crystal, wyckoff=crystal.wyckoff[order], species=crystal.species[order], free=crystal.free[order]
    )


def largest(difference) -> float:
    """Largest magnitude."""
    return float(difference.detach().abs().max())
