"""Substitutions keep the gene, scale the cell as the atoms do, and are told apart by the models."""

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, Element, Lattice, Structure

from autoperi.crystals.labels import Window
from autoperi.crystals.symmetry import symmetrise
from property_models.model import PropertyModel
from property_models.networks.ensemble import Ensemble, EnsembleConfig
from property_models.uses.substitution import substitution_scan, substitutions
from tests.property_models.small import TINY

TITANATE = Structure.from_spacegroup(
    "Pm-3m", Lattice.cubic(4.0), ["Ba", "Ti", "O"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0]]
)


def test_every_element_is_replaced_by_every_other():
    crystal = symmetrise(TITANATE)
    found = dict(substitutions(crystal, ["Ti", "Zr", "S"]))
    assert set(found) == {f"{old} -> {new}" for old in ("Ba", "Ti", "O") for new in ("Ti", "Zr", "S")} - {
        "Ti -> Ti"
    }
    assert found["Ti -> Zr"].formula == "BaZrO3"
    assert found["O -> S"].formula == "BaTiS3"
    assert {c.gene for c in found.values()} == {crystal.gene}
    everything = substitutions(crystal)
    assert len(everything) > 3 * 80
    assert len({name for name, _ in everything}) == len(everything)


def test_the_cell_grows_as_the_atoms_do():
    crystal = symmetrise(TITANATE)
    (_, swollen), *_ = substitutions(crystal, ["Zr"])
    cubes = {e: float(Element(e).atomic_radius) ** 3 for e in ("Ba", "Ti", "O", "Zr")}
    expected = (cubes["Zr"] + cubes["Ti"] + 3 * cubes["O"]) / (cubes["Ba"] + cubes["Ti"] + 3 * cubes["O"])
    assert swollen.to_structure().volume / TITANATE.volume == pytest.approx(expected, rel=1e-6)


def test_sites_are_doped_one_at_a_time():
    spinel = Structure.from_spacegroup(
        "Fd-3m", Lattice.cubic(8.4), ["Fe", "Fe", "O"], [[0.0] * 3, [0.625] * 3, [0.38] * 3]
    )
    crystal = symmetrise(spinel)
    whole, doped = substitutions(crystal, ["Co"]), substitutions(crystal, ["Co"], sites=True)
    compositions = [
        [c.to_structure().composition.reduced_composition for _, c in some] for some in (whole, doped)
    ]
    assert compositions[0] == [Composition("Co3O4"), Composition("Fe3Co4")]
    assert set(compositions[1]) == {Composition(f) for f in ("CoFe2O4", "Co2FeO4", "Fe3Co4")}
    assert len(doped) == 3


def test_a_scan_tells_what_changes():
    torch.manual_seed(0)
    model = PropertyModel(Ensemble(EnsembleConfig(TINY, 2)), TINY.targets)
    (target,) = TINY.targets
    table = substitution_scan(TITANATE, [model], ["Zr", "Hf"], windows={target: Window.of(":0")})
    assert table[f"{target}_chance"].between(0, 1).all()
    assert table[f"{target}_chance"].nunique() == len(table)
    assert table["substitution"].iloc[0] == "unchanged"
    assert table[f"{target}_change"].iloc[0] == 0
    assert len(table) == 1 + 6
    assert np.isfinite(table[target]).all()
    assert table[target].nunique() == len(table)


def test_unknown_elements_are_named():
    with pytest.raises(ValueError, match="Xx"):
        substitutions(symmetrise(TITANATE), ["Zr", "Xx"])
