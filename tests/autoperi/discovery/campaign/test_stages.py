from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.labels import Window
from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.campaign import stages as module
from autoperi.discovery.campaign.known import Known
from autoperi.genes.request import GeneRequest
from evaluation.facts.reference import Reference
from evaluation.relaxation.chgnet import CHGNET
from evaluation.stability.hull_choice import HullChoice
from tests.autoperi.discovery.campaign.campaigns import campaign
from tests.prototypes import prototype


def crystal(name, **elements):
    return symmetrise(prototype(name).replace_species(elements) if elements else prototype(name))


KNOWN = Known(
    [
        Reference.from_structures([prototype("NaCl")]),
        Reference.from_structures([prototype("TiO2 rutile"), prototype("ZnS zincblende")]),
    ]
)
"""Two sets."""


def test_the_least_level_of_all_sets_counts():
    """And what a crystal is akin to is named, with its space group and set."""
    some = [
        prototype("NaCl"),
        prototype("TiO2 rutile").replace_species({"Ti": "Sn"}),
        prototype("CaF2 fluorite"),
    ]
    levels = KNOWN.levels(some)
    assert [level for level, _ in levels] == ["duplicate", "substitution", "new_gene"]
    assert [akin.split(",")[0] for _, akin in levels] == ["NaCl (225", "TiO2 (136", ""]
    assert KNOWN.holds(some) == [True, False, False]
    assert KNOWN.levels([]) == []


@pytest.mark.parametrize(
    ("novelty", "left"),
    [("duplicate", 3), ("substitution", 2), ("known_gene", 1), ("new_gene", 1)],
)
def test_lower_levels_leave(novelty, left):
    some = [crystal("NaCl"), crystal("TiO2 rutile", Ti="Sn"), crystal("CaF2 fluorite")]
    kept = module._new(campaign(novelty=novelty), KNOWN, some)
    assert len(kept) == left
    assert kept[-1].provenance["novelty"] == "new_gene"


def test_what_overlaps_or_cannot_balance_is_not_valid():
    salt = crystal("NaCl")
    crushed = replace(salt, lattice_coords=salt.lattice_coords - 3 * np.eye(6)[5])
    some = [salt, crushed, crystal("CaF2 fluorite", Ca="Na"), crystal("CaF2 fluorite")]
    assert module._valid(some) == [salt, some[-1]]


def test_windows_choose_by_what_the_guide_says():
    """What it cannot tell is on no target."""
    some = [
        replace(
            crystal("NaCl"),
            properties={
                "predicted_band_gap": gap,
                "predicted_band_gap_chance": 0.4,
                "predicted_bulk_modulus": 40.0,
                "predicted_bulk_modulus_chance": 0.9,
            },
        )
        for gap in (0.9, 1.2, np.nan)
    ]
    asked = campaign(windows=(("band_gap", Window.of("1:2")), ("bulk_modulus", Window.of("30:"))))
    assert module._on_target(asked, some) == [some[1]]
    assert module._on_target(replace(asked, sure=0.5), some) == []
    assert module._on_target(replace(asked, windows=(("bulk_modulus", Window.of(":30")),)), some) == []


def test_relaxed_in_its_space_group_and_measured_against_the_hull(tmp_path):
    """What no longer meets the request leaves; what has no reference is not stable."""
    table = tmp_path / "hull.csv"
    table.write_text("composition,formation_energy_per_atom\nNaCl,-2.1\n")
    asked = campaign(hull=HullChoice.of(str(table)), stable=0.1, request=GeneRequest(space_groups=[225]))
    large = crystal("NaCl")
    large = replace(large, id="salt", lattice_coords=large.lattice_coords + 0.05 * np.eye(6)[5])
    (relaxed,) = module._relaxed(asked, [large, crystal("ZnS zincblende")])
    assert isinstance(relaxed, Crystal)
    assert (relaxed.id, relaxed.space_group) == ("salt", 225)
    assert relaxed.lattice_coords[5] < large.lattice_coords[5]
    stable = module._Stable(asked)
    (told,) = stable([relaxed])
    assert abs(told.properties["e_above_hull"]) < 0.1
    assert told.properties["formation_energy"] == pytest.approx(-2.1 + told.properties["e_above_hull"])
    assert module._Stable(replace(asked, stable=-1.0))([relaxed]) == []


def test_a_consistent_hull_has_the_phases_of_what_is_measured(tmp_path):
    """Rock salt lies on it; without them it would be above the elements alone, 2 eV/atom below."""
    (tmp_path / "mp_20").mkdir()
    salt = prototype("NaCl")
    for split in ("train", "val", "test"):
        rows = [(f"mp-{split}", salt.to(fmt="cif"), "NaCl")]
        table = pd.DataFrame(rows, columns=["material_id", "cif", "pretty_formula"])
        table.to_csv(tmp_path / "mp_20" / f"{split}.csv.gz", index=False)
    asked = campaign(hull=HullChoice.of("consistent"), data_dir=tmp_path)
    (energy,) = CHGNET.static_energies([salt])
    (told,) = module._Stable(asked)([replace(symmetrise(salt), properties={"energy": energy})])
    assert told.properties["e_above_hull"] == pytest.approx(0, abs=1e-4)
    assert told.provenance["decomposes_to"] == "NaCl"


def test_phonons_choose():
    """Rock salt shakes; a perovskite that would rather tilt falls."""
    pytest.importorskip("phonopy", reason="phonopy is not installed")
    kept = module._Dynamic("chgnet")([crystal("NaCl"), crystal("SrTiO3 perovskite")])
    assert [c.formula for c in kept] == ["NaCl"]
    assert abs(kept[0].properties["least_frequency"]) < 0.1
