import numpy as np
import pytest
from pymatgen.core import Composition

from autoperi.data.element_references import ElementReferences, fit_element_references


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
        [Composition("Na")], np.array([-1.0]), np.array([0.0]), {"Na": 0, "Xe": 7}, ridge=0.02
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
