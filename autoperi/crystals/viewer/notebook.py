"""How a notebook shows a crystal and a list of crystals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoperi.crystals.viewer.page import crystal_scene, embedded, render_crystal, render_page, spaced

if TYPE_CHECKING:
    from autoperi.crystals.crystal import Crystal

_MOST = 200  # crystals in one cell of a notebook, which is kept in its file


def crystal_html(crystal: "Crystal") -> str:
    """One crystal to turn, beside its facts."""
    return embedded(render_crystal(crystal_scene(crystal.id, crystal), _facts(crystal)), 370)


def gallery_html(crystals: "Sequence[Crystal]") -> str:
    """Pictures and a sortable table of the crystals, at most 200 of them, evenly spaced."""
    names = [crystal.id or str(k) for k, crystal in enumerate(crystals)]
    scenes, rows = [], []
    for k in spaced(len(crystals), _MOST):
        scenes.append(crystal_scene(names[k], crystals[k]))
        rows.append({"id": names[k], **_facts(crystals[k])})
    title = f"{len(crystals)} crystals" + (
        f", {len(rows)} of them shown" if len(rows) < len(crystals) else ""
    )
    return embedded(render_page(title, "", {"crystals": (scenes, rows)}, ""), 640)


def _facts(crystal: "Crystal") -> dict[str, Any]:
    lattice, *_ = crystal.expand()
    return {
        "formula": crystal.formula,
        "space_group": crystal.space_group,
        "gene": crystal.gene,
        "atoms": crystal.n_atoms,
        "volume_per_atom": abs(np.linalg.det(lattice)) / crystal.n_atoms,
        **crystal.properties,
    }
