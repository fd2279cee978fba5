"""Surfaces: slabs cut from crystals, their energies, and molecules that come to rest on them."""

from autoperi.discovery.surfaces.adsorbates import Adsorbate
from autoperi.discovery.surfaces.adsorption import Adsorbed, Surface, adsorb, prepared, save
from autoperi.discovery.surfaces.placement import (
    Placement,
    basins_first,
    by_sites,
    random_placements,
    rigidly_descended,
)
from autoperi.discovery.surfaces.slabs import (
    SlabSettings,
    cut,
    low_planes,
    miller_index,
    read_structure,
    slab_for_molecules,
)
from autoperi.discovery.surfaces.surface_energy import SurfaceEnergy, surface_energies

__all__ = [
    "Adsorbate",
    "Adsorbed",
    "Placement",
    "SlabSettings",
    "Surface",
    "SurfaceEnergy",
    "adsorb",
    "basins_first",
    "by_sites",
    "cut",
    "low_planes",
    "miller_index",
    "prepared",
    "random_placements",
    "read_structure",
    "rigidly_descended",
    "save",
    "slab_for_molecules",
    "surface_energies",
]
