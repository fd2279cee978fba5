"""Crystals that need no data folder: well-known prototypes, and random ones of any space group.

Lattice constants (Å, degrees) and free coordinates are room-temperature values from the literature
(R. W. G. Wyckoff, Crystal Structures, 1963-1971), rounded. Groups with two origins are given
in origin choice 1, as ``Structure.from_spacegroup`` reads them.
"""

import numpy as np
import torch
from pymatgen.core import Lattice, Structure

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.lattice import constrain_lattice
from autoperi.crystals.wyckoff import wyckoff_table

_THIRD = 1 / 3

# name: (space group, lattice constructor, its arguments, species, positions)
PROTOTYPES = {
    "NaCl": (225, "cubic", (5.6402,), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "CsCl": (221, "cubic", (4.123,), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "ZnS zincblende": (216, "cubic", (5.4093,), ["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "GaAs": (216, "cubic", (5.6533,), ["Ga", "As"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "Si diamond": (227, "cubic", (5.4307,), ["Si"], [[0, 0, 0]]),
    "C diamond": (227, "cubic", (3.567,), ["C"], [[0, 0, 0]]),
    "ZnO wurtzite": (
        186,
        "hexagonal",
        (3.2495, 5.2069),
        ["Zn", "O"],
        [[_THIRD, 2 / 3, 0], [_THIRD, 2 / 3, 0.3819]],
    ),
    "TiO2 rutile": (136, "tetragonal", (4.5937, 2.9587), ["Ti", "O"], [[0, 0, 0], [0.3053, 0.3053, 0]]),
    "TiO2 anatase": (141, "tetragonal", (3.7842, 9.5146), ["Ti", "O"], [[0, 0, 0], [0, 0, 0.2081]]),
    "SrTiO3 perovskite": (
        221,
        "cubic",
        (3.905,),
        ["Sr", "Ti", "O"],
        [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0]],
    ),
    "CaTiO3": (
        62,
        "orthorhombic",
        (5.4423, 7.6401, 5.3796),
        ["Ca", "Ti", "O", "O"],
        [[0.0365, 0.25, 0.9932], [0, 0, 0.5], [0.4838, 0.25, 0.0713], [0.2887, 0.0371, 0.7111]],
    ),
    "MgAl2O4 spinel": (
        227,
        "cubic",
        (8.0806,),
        ["Mg", "Al", "O"],
        [[0, 0, 0], [0.625, 0.625, 0.625], [0.3874, 0.3874, 0.3874]],
    ),
    "CaF2 fluorite": (225, "cubic", (5.4626,), ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "SiO2 quartz": (
        154,
        "hexagonal",
        (4.9134, 5.4052),
        ["Si", "O"],
        [[0.4699, 0, 2 / 3], [0.4141, 0.2681, 0.7854]],
    ),
    "Al2O3 corundum": (167, "hexagonal", (4.7587, 12.9929), ["Al", "O"], [[0, 0, 0.3522], [0.3063, 0, 0.25]]),
    "Mg hcp": (194, "hexagonal", (3.2094, 5.2108), ["Mg"], [[_THIRD, 2 / 3, 0.25]]),
    "Fe bcc": (229, "cubic", (2.8665,), ["Fe"], [[0, 0, 0]]),
    "Cu fcc": (225, "cubic", (3.6149,), ["Cu"], [[0, 0, 0]]),
    "C graphite": (194, "hexagonal", (2.461, 6.708), ["C", "C"], [[0, 0, 0.25], [_THIRD, 2 / 3, 0.25]]),
    "Cu3Au": (221, "cubic", (3.7493,), ["Au", "Cu"], [[0, 0, 0], [0, 0.5, 0.5]]),
    "CuAu": (123, "tetragonal", (2.8, 3.67), ["Cu", "Au"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "FeS2 pyrite": (205, "cubic", (5.4166,), ["Fe", "S"], [[0, 0, 0], [0.3848, 0.3848, 0.3848]]),
    "MoS2": (
        194,
        "hexagonal",
        (3.1604, 12.295),
        ["Mo", "S"],
        [[_THIRD, 2 / 3, 0.25], [_THIRD, 2 / 3, 0.621]],
    ),
    "CdI2": (164, "hexagonal", (4.24, 6.84), ["Cd", "I"], [[0, 0, 0], [_THIRD, 2 / 3, 0.25]]),
    "Bi2Te3": (
        166,
        "hexagonal",
        (4.3835, 30.487),
        ["Bi", "Te", "Te"],
        [[0, 0, 0.4], [0, 0, 0], [0, 0, 0.212]],
    ),
    "NiAs": (194, "hexagonal", (3.602, 5.009), ["Ni", "As"], [[0, 0, 0], [_THIRD, 2 / 3, 0.25]]),
    "MnAlCu2 Heusler": (
        225,
        "cubic",
        (5.949,),
        ["Al", "Mn", "Cu"],
        [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]],
    ),
    "CuFeS2 chalcopyrite": (
        122,
        "tetragonal",
        (5.289, 10.423),
        ["Cu", "Fe", "S"],
        [[0, 0, 0], [0, 0, 0.5], [0.2574, 0.25, 0.125]],
    ),
    "Cu2O cuprite": (224, "cubic", (4.2696,), ["O", "Cu"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "CaCO3 calcite": (
        167,
        "hexagonal",
        (4.99, 17.061),
        ["Ca", "C", "O"],
        [[0, 0, 0], [0, 0, 0.25], [0.2568, 0, 0.25]],
    ),
    "Cr3Si A15": (223, "cubic", (4.556,), ["Si", "Cr"], [[0, 0, 0], [0.25, 0, 0.5]]),
    "ZrO2 baddeleyite": (
        14,
        "monoclinic",
        (5.1505, 5.2116, 5.3173, 99.23),
        ["Zr", "O", "O"],
        [[0.2754, 0.0395, 0.2083], [0.07, 0.3317, 0.3447], [0.4496, 0.7569, 0.4792]],
    ),
}


def prototype(name: str) -> Structure:
    """The conventional cell of one of ``PROTOTYPES``."""
    number, system, constants, species, positions = PROTOTYPES[name]
    return Structure.from_spacegroup(number, getattr(Lattice, system)(*constants), species, positions)


def random_crystal(space_group: int, seed: int, extra_sites: int = 1, max_dim: int = 3) -> Crystal:
    """A crystal of exactly this space group: two general orbits (no higher symmetry) and some others.

    Atoms are at least 0.9 Å apart; the volume is 25 Å³ per atom.
    """
    table = wyckoff_table()
    first, last = table.group_start[space_group : space_group + 2].tolist()
    for attempt in range(2000):
        rng = np.random.default_rng([space_group, seed, attempt])
        allowed = [p for p in range(first, last) if int(table.dim[p]) <= max_dim]
        sites = [last - 1, last - 1, *rng.choice(allowed, size=extra_sites)]
        wyckoff = np.array(sorted(int(p) for p in sites))
        dims = table.dim.numpy()[wyckoff]
        free = np.where(np.arange(3) < dims[:, None], rng.random((len(sites), 3)), 0.0)
        n_atoms = int(table.multiplicity.numpy()[wyckoff].sum())
        per_conventional = round(1 / float(torch.linalg.det(table.primitive[space_group])))
        lattice = rng.normal(0, 0.12, 6)
        lattice[5] = np.log(25 * n_atoms * per_conventional) / 3
        coords = constrain_lattice(
            torch.from_numpy(lattice)[None], table.family[space_group : space_group + 1]
        )[0].numpy()
        species = rng.choice([8, 11, 14, 22, 26, 47, 56], size=len(sites), replace=False)
        crystal = Crystal(space_group, wyckoff, species, free, coords, id=f"random-{space_group}-{seed}")
        distances = crystal.to_structure().distance_matrix
        np.fill_diagonal(distances, 9.0)
        if distances.min() > 0.9:
            return crystal
    raise RuntimeError(f"no random crystal of space group {space_group} with atoms apart")
