"""Gibbs energies of polymorphs: the thermodynamics of them, what is left out, and that a run goes on."""

import numpy as np
import pandas as pd
import pytest
from ase.units import GPa
from pymatgen.core import Lattice, Structure

from evaluation.relaxation.chgnet import CHGNET
from evaluation.stability import quasiharmonic
from evaluation.stability.phonons import PhononSettings, Spectrum
from evaluation.stability.quasiharmonic import (
    Compressed,
    QuasiharmonicSettings,
    StabilityMap,
    gibbs_energies,
    read_polymorphs,
    stability_map,
)

pytest.importorskip("phonopy", reason="phonopy is not installed")
QUICK = QuasiharmonicSettings(tension=2.0, volumes=6)
SALT = {
    "rocksalt": Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.6), ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
    "caesium chloride": Structure(Lattice.cubic(3.4), ["Na", "Cl"], [[0] * 3, [0.5] * 3]),
    "zincblende": Structure.from_spacegroup("F-43m", Lattice.cubic(6.1), ["Na", "Cl"], [[0] * 3, [0.25] * 3]),
}


def einstein(structure, *_):
    """Oscillators that stiffen as the volume falls; two neighbours too many are imaginary."""
    frequencies = np.full((1, 3 * len(structure)), 150 / structure.volume)
    imaginary = structure.get_space_group_info(0.01)[1] == 221
    return Spectrum(frequencies, np.ones(1), float(-frequencies[0, 0]) if imaginary else 0.0)


def points(energy, volume, modulus, frequency):
    """Volumes of a solid of a Vinet equation (B' = 4) whose oscillators know no volume."""
    from phonopy.qha.eos import get_eos

    volumes = volume * np.linspace(0.85, 1.1, 8)
    energies = get_eos("vinet")(volumes, np.array([energy, modulus * GPa, 4.0, volume]))
    spectrum = Spectrum(np.full((1, 6), frequency), np.ones(1), 0.0)
    pairs = zip(volumes, energies, strict=True)
    return [Compressed(0.0, v, e, 2, spectrum) for v, e in pairs]


def test_gibbs_energies_obey_thermodynamics():
    """dG/dp is the volume, which falls with the bulk modulus; what no volume reaches is NaN."""
    p, t = np.array([0.0, 0.1, 5.0, 100.0]), np.array([0.0, 500.0])
    found = gibbs_energies(points(-20.0, 40.0, 100.0, 8.0), t, p)
    zero_point = Spectrum(np.full((1, 6), 8.0), np.ones(1), 0.0).free_energy(t) / 2
    assert found[:, 0] == pytest.approx(-20.0 + zero_point, abs=1e-5)
    assert (found[:, 1] - found[:, 0]) / (0.1 * GPa) == pytest.approx(40.0, rel=1e-3)
    assert (found[:, 2] - found[:, 0]) / (5 * GPa) == pytest.approx(40 * (1 - 5 / 200), rel=0.003)
    assert np.isnan(found[:, 3]).all()


def test_transitions_are_where_gibbs_energies_cross(tmp_path):
    p, t = np.linspace(0, 10, 11), np.array([0.0, 300.0])
    flat, falling = np.zeros((2, 11)), np.stack([0.33 - 0.1 * p, 0.55 - 0.1 * p])
    none = np.full((2, 11), np.nan)
    falling[:, 10] = np.nan
    flat[:, 10] = np.nan
    found = StabilityMap("X", t, p, {"a": flat, "b": falling, "c": none}, {}, {})
    (crossing,) = found.transitions(310)
    assert (crossing.below, crossing.above, crossing.temperature) == ("a", "b", 300.0)
    assert crossing.pressure == pytest.approx(5.5)
    assert found.lowest[:, -1].tolist() == [-1, -1]
    table = found.table()
    assert set(table[table.pressure == 10].stable) == {""}
    assert table[(table.temperature == 0) & (table.pressure == 4)].stable.item() == "b"
    assert [x["pressure"] for x in found.record()["transitions"]] == pytest.approx([3.3, 5.5])
    found.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"map.png", "map.csv", "map.json"}


def test_a_polymorph_with_imaginary_phonons_is_left_out_by_name(monkeypatch, tmp_path):
    """And a second run takes all it needs from the journals of the first."""
    monkeypatch.setattr(quasiharmonic, "spectrum", einstein)
    t, p = [0.0, 300.0], np.linspace(0, 10, 21)
    first = stability_map(SALT, t, p, CHGNET, QUICK, tmp_path)
    assert set(first.gibbs) == {"rocksalt", "zincblende"}
    assert "0 of 6 volumes are left, 5 are needed (-2 GPa: imaginary" in first.left_out["caesium chloride"]
    assert set(first.table().stable) == {"rocksalt"}
    volumes = [c.volume for c in first.compressed["rocksalt"]]
    assert volumes == sorted(volumes, reverse=True)
    monkeypatch.setattr(quasiharmonic, "spectrum", lambda *_: pytest.fail("computed again"))
    pd.testing.assert_frame_equal(stability_map(SALT, t, p, CHGNET, QUICK, tmp_path).table(), first.table())
    other = QuasiharmonicSettings(PhononSettings(extent=7.0), 2.0, 6)
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        stability_map(SALT, t, p, CHGNET, other, tmp_path)


def test_what_cannot_be_compared_says_why(monkeypatch):
    monkeypatch.setattr(quasiharmonic, "spectrum", einstein)
    t, p = [0.0], [0.0, 1.0]
    pair = {name: SALT[name] for name in ("rocksalt", "caesium chloride")}
    with pytest.raises(ValueError, match="two or more polymorphs of one formula: got rocksalt \\(NaCl\\)"):
        stability_map({"rocksalt": SALT["rocksalt"]}, t, p, CHGNET)
    potassium = SALT["zincblende"].copy().replace_species({"Na": "K"})
    with pytest.raises(ValueError, match="one formula: got rocksalt \\(NaCl\\), other \\(KCl\\)"):
        stability_map({"rocksalt": SALT["rocksalt"], "other": potassium}, t, p, CHGNET)
    with pytest.raises(ValueError, match="two polymorphs with phonons: caesium chloride: 0 of 6"):
        stability_map(pair, t, p, CHGNET, QUICK)
    for wrong in (([-1.0], p), (t, [1.0, 0.0]), (t, [0.0]), ([np.inf], p), ([], p)):
        with pytest.raises(ValueError, match="from 0 K up and rising pressures"):
            stability_map(pair, *wrong, CHGNET)


def test_polymorphs_go_by_the_names_of_their_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        SALT["rocksalt"].to(str(tmp_path / name / "salt.cif"))
    (tmp_path / "broken.cif").write_text("nothing")
    found, failures = read_polymorphs(
        [tmp_path / "a" / "salt.cif", tmp_path / "b" / "salt.cif", tmp_path / "broken.cif"]
    )
    assert len(found) == 2
    assert "salt" in found
    assert [name for name, *_ in failures] == ["broken"]
