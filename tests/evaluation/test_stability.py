import numpy as np
import pytest
from pymatgen.core import Composition, Lattice, Structure

from evaluation.element_references import ElementReferences, fit_element_references
from evaluation.hull import ConvexHull
from evaluation.potential import RelaxationSettings, relax, static_energies
from evaluation.readers import Sample
from evaluation.stability import StabilitySettings, stability_table
from tests.evaluation.crystals import rocksalt


def test_references_are_recovered_from_exact_energies():
    truth = {"Na": -1.3, "Cl": -1.8, "O": -4.9}
    compositions = [Composition(f) for f in ("NaCl", "Na2O", "ClO2", "NaClO", "Na3Cl", "O2")]
    formation = np.linspace(-2, 0, len(compositions))
    energies = [
        f + sum(truth[el] * n for el, n in c.fractional_composition.get_el_amt_dict().items())
        for c, f in zip(compositions, formation, strict=True)
    ]
    prior = dict.fromkeys(truth, 0.0)
    fitted = fit_element_references(compositions, np.array(energies), formation, prior, ridge=1e-9)
    for symbol, value in truth.items():
        assert fitted.energies[symbol] == pytest.approx(value, abs=1e-5)
    assert fitted.formation_energy("NaCl", -3.0) == pytest.approx(-3.0 + 1.55, abs=1e-5)


def test_an_element_never_seen_keeps_its_prior():
    fitted = fit_element_references(
        [Composition("Na")], np.array([-1.0]), np.array([0.0]), {"Na": 0, "Xe": 7}
    )
    assert fitted.energies["Xe"] == 7


def test_shipped_references_state_their_residual(tmp_path):
    shipped = ElementReferences.load()
    assert len(shipped.energies) >= 88
    assert shipped.provenance["val_mae"] < 0.025  # type: ignore[operator]
    assert abs(shipped.provenance["val_bias"]) < 0.005  # type: ignore[arg-type]
    shipped.save(tmp_path / "r.json")
    assert ElementReferences.load(tmp_path / "r.json") == shipped
    with pytest.raises(KeyError, match="Og"):
        shipped.formation_energy("Og", 0.0)


def test_static_energy_gives_the_known_formation_energy_of_salt():
    lonely = Structure(Lattice.cubic(30), ["Na"], [[0, 0, 0]])
    energies = list(static_energies([rocksalt(), lonely, rocksalt()]))
    assert energies[0] == pytest.approx(energies[2], abs=1e-4)
    # Materials Project mp-22862: -2.10 eV/atom.
    formation = ElementReferences.load().formation_energy("NaCl", energies[0])
    assert formation == pytest.approx(-2.1, abs=0.1)


def test_relaxation_restores_the_lattice_constant():
    strained = rocksalt(a=6.0).get_primitive_structure()
    result = relax(strained, RelaxationSettings(max_steps=60))
    assert result.converged
    assert result.structure.volume == pytest.approx(5.69**3 / 4, rel=0.05)


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    salt = rocksalt(a=5.7).get_primitive_structure()
    lonely = Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]])
    settings = StabilitySettings(relaxation=RelaxationSettings(max_steps=3))
    hull = ConvexHull(["NaCl"], [-2.1])
    references = ElementReferences.load()
    journal = tmp_path / "journal.jsonl"
    samples = [Sample("salt", salt), Sample("lonely", lonely)]
    table = stability_table(samples, hull, references, settings, journal)
    assert list(table.index) == ["salt", "lonely"]
    assert abs(table.loc["salt", "e_above_hull"]) < 0.1
    assert table.loc["salt", "matches_raw"]
    with journal.open("a") as stream:
        stream.write('{"id": "cut o')

    def forbidden(*_):
        raise AssertionError("relaxed again")

    monkeypatch.setattr("evaluation.stability.relax", forbidden)
    again = stability_table(samples, hull, references, settings, journal)
    assert again.equals(table)
