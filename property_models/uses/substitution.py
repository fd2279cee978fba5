"""Substitution and doping scans: one site, or all of one element, replaced by others."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from pymatgen.core import Element

from autoperi.crystals.crystal import MAX_Z, Crystal
from autoperi.crystals.labels import Window
from autoperi.crystals.lattice import VOLUME
from autoperi.crystals.symmetry import symmetrise
from property_models.model import PropertyModel

if TYPE_CHECKING:
    import pandas as pd
    from pymatgen.core import Structure


def substitutions(
    crystal: Crystal, elements: Collection[str] = (), *, sites: bool = False
) -> list[tuple[str, Crystal]]:
    """Every crystal that differs from this one in one species, named ``Ti:a -> Zr``.

    The volume is scaled by the mean cube of the atomic radii, as far as both are known (Slater's, in
    pymatgen); a gene is kept, even where the new species could give more symmetry.

    Args:
        crystal: with symmetry.
        elements: what may come in; by default everything with a radius up to Z = 94.
        sites: replace one symmetry-distinct site at a time (doping), not all of one element (substitution).

    Raises:
        ValueError: an unknown element.
    """
    unknown = [e for e in elements if not Element.is_valid_symbol(e) or Element(e).Z > MAX_Z]
    if unknown:
        raise ValueError(f"expected symbols of elements up to Z = {MAX_Z}: got {', '.join(unknown)}")
    incoming = sorted(Element(e).Z for e in elements) or [
        z for z in range(1, 95) if Element.from_Z(z).atomic_radius
    ]
    letters = crystal.letters
    parts: dict[str, np.ndarray] = {}
    for k, z in enumerate(crystal.species.tolist()):
        symbol = Element.from_Z(z).symbol
        name = f"{symbol}:{letters[k]}{k + 1}" if sites else symbol
        parts.setdefault(name, np.zeros(crystal.n_sites, bool))[k] = True
    found = []
    for name, replaced in parts.items():
        (old,) = set(crystal.species[replaced].tolist())
        for new in incoming:
            if new != old:
                species = np.where(replaced, new, crystal.species)
                title = f"{name} -> {Element.from_Z(new).symbol}"
                found.append((title, _scaled(replace(crystal, species=species, id=title), crystal)))
    return found


def exchanged(crystal: Crystal, elements: Mapping[int, int]) -> Crystal:
    """The crystal with some elements given way to others, by atomic number; volume as in `substitutions`."""
    species = np.array([elements.get(z, z) for z in crystal.species.tolist()])
    return _scaled(replace(crystal, species=species), crystal)


def substitution_scan(
    structure: "Structure | Crystal",
    models: Sequence[PropertyModel],
    elements: Collection[str] = (),
    *,
    sites: bool = False,
    windows: Mapping[str, Window] = MappingProxyType({}),
) -> "pd.DataFrame":
    """Predicted properties of every substitution, the crystal itself in the first row.

    Args:
        structure: symmetrised first if it is a structure.
        models: of one target each.
        elements: what may come in, see ``substitutions``.
        sites: one site at a time, see ``substitutions``.
        windows: of some of the targets.

    Returns:
        One row per crystal: substitution, formula, and for each target ``<target>``,
        ``<target>_uncertainty``, ``<target>_out_of_domain``, ``<target>_change`` against the first row and,
        where there is a window, ``<target>_chance`` that the value lies in it.
    """
    import pandas as pd

    crystal = structure if isinstance(structure, Crystal) else symmetrise(structure)
    rows = [("unchanged", crystal), *substitutions(crystal, elements, sites=sites)]
    table = pd.DataFrame({"substitution": [n for n, _ in rows], "formula": [c.formula for _, c in rows]})
    for model in models:
        (target,) = model.targets
        crystals = [c for _, c in rows]
        found = model.predict(crystals)
        table[target] = found["value"]
        table[f"{target}_uncertainty"] = found["uncertainty"]
        table[f"{target}_out_of_domain"] = found["out_of_domain"]
        table[f"{target}_change"] = found["value"] - found["value"].iloc[0]
        if target in windows:
            table[f"{target}_chance"] = model.chances(crystals, [windows[target]]).squeeze(1)
    return table


def _scaled(crystal: Crystal, before: Crystal) -> Crystal:
    """The cell enlarged as the atoms are."""
    new, old = _volume(crystal), _volume(before)
    if new is None or old is None:
        return crystal
    lattice = crystal.lattice_coords.copy()
    lattice[VOLUME] += np.log(new / old) / 3
    return replace(crystal, lattice_coords=lattice)


def _volume(crystal: Crystal) -> float | None:
    """Sum of cubed radii, or None where one is unknown."""
    total = 0.0
    for z, count in zip(crystal.species.tolist(), crystal.multiplicities.tolist(), strict=True):
        radius = Element.from_Z(z).atomic_radius
        if radius is None:
            return None
        total += count * float(radius) ** 3
    return total
