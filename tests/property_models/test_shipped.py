"""The weights in the package: what is known of common materials, sizes, and honesty about strangers."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

import property_models
from autoperi.crystals.labels import Window
from autoperi.networks.checkpoint import CheckpointError
from property_models.catalogue import find
from property_models.model import PRETRAINED
from tests.prototypes import prototype

SALT = prototype("NaCl")


def test_formation_energies_are_those_of_the_textbook():
    """Materials Project values, within 0.3 eV/atom."""
    known = {"NaCl": -2.1, "TiO2 rutile": -3.4, "Al2O3 corundum": -3.3, "ZnO wurtzite": -1.8}
    table = property_models.load("formation_energy").predict([prototype(name) for name in known])
    assert table["value"].tolist() == pytest.approx(list(known.values()), abs=0.3)
    assert (table["uncertainty"] < 0.3).all()


def test_metals_have_no_gap_and_salts_have_one():
    """Copper has none; that of NaCl is 5 eV with the functional of the labels."""
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    table = property_models.load("band_gap").predict([copper, SALT])
    assert table["value"][0] == 0
    assert table["value"][1] == pytest.approx(5.0, abs=1.0)


@pytest.mark.parametrize("family", ["guide", "judge"])
def test_chances_of_windows(family):
    """A metal is surely at zero, salt surely not; windows that share an end add up; what is none has NaN."""
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.61), ["Cu"], [[0, 0, 0]])
    ends = [Window(-np.inf, 0.0), Window(1e-9, 5.0), Window(5.0, np.inf), Window(-np.inf, np.inf)]
    model = property_models.load("band_gap", family)
    found = model.chances([copper, SALT, "no crystal"], ends, batch_size=1)
    assert found[:2, 0] == pytest.approx([1, 0], abs=0.05)
    assert found[:2, :3].sum(1) == pytest.approx([1, 1], abs=1e-5)
    assert found[:2, 3].tolist() == [1, 1]
    assert np.isnan(found[2]).all()
    assert model.chances([SALT], []).shape == (1, 0)
    with pytest.raises(ValueError, match="expected a model of one target"):
        property_models.load("elastic_guide").chances([SALT], ends)


def test_chances_of_moduli_are_in_gigapascals():
    """Half of the distribution lies above the value; below zero there is nothing."""
    model = property_models.load("bulk_modulus")
    value = float(model.predict([SALT])["value"][0])
    found = model.chances([SALT], [Window(value, np.inf), Window(-np.inf, np.inf), Window(-5, 0)])
    assert found[0] == pytest.approx([0.5, 1, 0], abs=1e-4)


def test_diamond_is_stiffer_than_salt():
    """Measured: 443 and 25 GPa. Both were in the judge's half; the guide has seen neither."""
    diamond = Structure.from_spacegroup("Fd-3m", Lattice.cubic(3.567), ["C"], [[0, 0, 0]])
    judged = property_models.load("bulk_modulus", "judge").predict([diamond, SALT])
    assert judged["value"].tolist() == pytest.approx([443, 25], rel=0.1)
    guessed = property_models.load("bulk_modulus").predict([diamond, SALT])
    assert guessed["value"][1] == pytest.approx(25, rel=0.1)
    assert guessed["value"][0] > 200


def test_strangers_are_flagged():
    """Xenon and fluorine in a cell of 2.2 Å across are nothing that the training set holds."""
    squeezed = Structure(Lattice.cubic(2.2), ["F", "Xe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    table = property_models.load("formation_energy").predict([SALT, squeezed])
    assert table["out_of_domain"].tolist() == [False, True]
    assert table["value"][1] > 1
    above = property_models.load("e_above_hull").predict([SALT, squeezed])["value"]
    assert abs(above[0]) < 0.05
    assert above[1] > 1


@pytest.mark.parametrize("family", ["guide", "judge"])
@pytest.mark.parametrize("name", ["formation_energy", "e_above_hull", "band_gap", "bulk_modulus"])
def test_what_was_never_shown_is_flagged_with_the_reason(name, family):
    """Elements, lone atoms, bonds of 10 Å and atoms on top of each other; salt itself is known."""
    lone = Structure(Lattice.cubic(15), ["H"], [[0, 0, 0]])
    stretched, squeezed = SALT.copy(), SALT.copy()
    stretched.scale_lattice(SALT.volume * (10 / 2.82) ** 3)
    squeezed.scale_lattice(SALT.volume * 0.6**3)
    unseen = [Structure.from_spacegroup("Fm-3m", Lattice.cubic(5), [e], [[0, 0, 0]]) for e in ("Ar", "Cf")]
    model = property_models.load(name, family)
    words = (
        "",
        "",
        "no neighbour",
        "nearest neighbour",
        "training crystal has Ar",
        "training crystal has Cf",
    )
    for used in (model, model.fast()):
        table = used.predict([SALT, lone, stretched, squeezed, *unseen])
        assert table["out_of_domain"].tolist() == [False, True, True, True, True, True]
        assert all(word in reason for word, reason in zip(words, table["reason"], strict=True))


def test_folders_of_their_names_hide_no_model(tmp_path, monkeypatch):
    """Property and checkpoint names come first; a path, or a `Path`, means the folder."""
    for name in ("formation_energy", "elastic_guide", "mp_20"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert property_models.load("formation_energy").name == "formation_energy_guide"
    assert property_models.load("elastic_guide").targets[0] == "bulk_modulus"
    assert find("mp_20").parent.name == "pretrained"
    for folder in ("./formation_energy", tmp_path / "elastic_guide"):
        with pytest.raises(CheckpointError, match=r"lacks config\.json"):
            property_models.load(folder)


def test_weights_are_small():
    assert sum(f.stat().st_size for f in PRETRAINED.rglob("*") if f.is_file()) < 20e6
