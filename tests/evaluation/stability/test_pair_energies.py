import numpy as np
import pandas as pd
import pytest

from autoperi.data.element_references import ElementReferences
from evaluation.metric import BootstrapSettings
from evaluation.stability.hull import ConvexHull
from evaluation.stability.pair_energies import energy_metrics, pair_energies
from tests.evaluation.crystals import diamond, rocksalt

REFERENCES = ElementReferences({"Na": -1.0, "Cl": -2.0})
HULL = ConvexHull.from_table(
    pd.DataFrame({"composition": ["NaCl"], "formation_energy_per_atom": [-2.0]}),
    "composition",
    "formation_energy_per_atom",
)


def energies(structures):
    """-3.4 eV/atom for the ideal rock salt, rising with the square of the strain."""
    for s in structures:
        edge = (4 * s.volume / (len(s) / 2)) ** (1 / 3)
        yield -3.4 + 0.5 * (edge - 5.64) ** 2 if s.reduced_formula == "NaCl" else np.nan


def test_losses_on_hand_computed_pairs():
    pairs = pair_energies(
        [rocksalt(a=6.64), rocksalt(a=5.64)], [rocksalt(a=5.64)] * 2, HULL, REFERENCES, energies
    )
    # formation energy -3.4 + 1.5 = -1.9: .1 above the hull at -2; the strained one .5 higher
    assert pairs["target_e_above_hull"].tolist() == pytest.approx([0.1, 0.1])
    assert pairs["e_above_hull"].tolist() == pytest.approx([0.6, 0.1])
    found = energy_metrics(pairs, "a spring", BootstrapSettings(resamples=20))
    assert found["energy_loss"].value == pytest.approx(0.25)
    assert found["stability_loss"].value == pytest.approx(0.35)
    assert found["target_stability_loss"].value == pytest.approx(0.1)
    assert found["energy_loss"].n == 2


def test_a_pair_without_energy_is_left_out_and_counted():
    pairs = pair_energies([diamond(), rocksalt(a=5.64)], [rocksalt(a=5.64)] * 2, HULL, REFERENCES, energies)
    assert np.isnan(pairs["energy"][0])
    assert energy_metrics(pairs, "a spring")["stability_loss"].n == 1


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="1 for 0"):
        pair_energies([rocksalt()], [], HULL, REFERENCES, energies)
