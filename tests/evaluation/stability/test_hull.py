import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from evaluation.stability.hull import ConvexHull


def test_binary_by_hand():
    hull = ConvexHull(["AB".replace("A", "Na").replace("B", "Cl"), "Na3Cl"], [-2.0, -0.5])
    assert hull.hull_energy("NaCl") == pytest.approx(-2.0)
    # Na3Cl lies on the line from Na (0) to NaCl (-2) at half way: -1, so it is 0.5 above.
    assert hull.above("Na3Cl", -0.5) == pytest.approx(0.5)
    assert hull.above("NaCl", -2.5) == pytest.approx(-0.5)
    assert hull.hull_energy("KBr") == pytest.approx(0)


def test_nan_rows_are_left_out_and_lengths_checked():
    assert ConvexHull(["NaCl"], [np.nan]).n_phases == 0
    with pytest.raises(ValueError, match="2 energies for 1 compositions"):
        ConvexHull(["NaCl"], [1.0, 2.0])


def test_any_table_makes_a_hull(tmp_path):
    """`NaN` is a formula (sodium nitride), an empty energy is a row without one."""
    table = pd.DataFrame({"formula": ["NaCl", "NaN", "Na3Cl"], "e_f": [-2.0, 0.3, np.nan]})
    table.to_csv(tmp_path / "phases.csv.gz", index=False)
    for source in (table, tmp_path / "phases.csv.gz"):
        hull = ConvexHull.from_table(source, composition="formula", energy="e_f")
        assert hull.n_phases == 2
        assert hull.above("NaN", 0.3) == pytest.approx(0.3)
        assert hull.hull_energy("Na3Cl") == pytest.approx(-1.0)
    with pytest.raises(ValueError, match=r"no column \['composition'.*the table has \['formula', 'e_f'\]"):
        ConvexHull.from_table(table)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("H,many", "expected numbers in column formation_energy_per_atom, eV/atom, or nothing: got 'many'"),
        ("H,inf", "or nothing: got 'inf'"),
        ("Xx2,-1", "got 'Xx'"),
        ("Na(Cl,-1", "the formula of a phase: got 'Na(Cl'"),
        ("Na0,-1", "the formula of a phase: got 'Na0'"),
        (",-1", "the formula of a phase: got ''"),
    ],
)
def test_a_row_that_is_no_phase_is_named(tmp_path, row, told):
    """On purpose: what a library says of it would not reach a user in a line."""
    (tmp_path / "hull.csv").write_text(f"composition,formation_energy_per_atom\nNaCl,-2.1\n{row}\n")
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        ConvexHull.from_table(tmp_path / "hull.csv")
    assert raised.traceback[-1].path.name == "hull.py"


FORMULAS = ["LiO", "Li2O", "FeO", "Fe2O3", "LiFe", "LiFeO2", "Li2FeO3", "Li5FeO4"]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 1), min_size=len(FORMULAS), max_size=len(FORMULAS)), st.sampled_from(FORMULAS))
def test_agrees_with_the_phase_diagram(energies, asked):
    hull = ConvexHull(FORMULAS, energies)
    compositions = [Composition(f) for f in FORMULAS]
    entries = [PDEntry(c, e * c.num_atoms) for c, e in zip(compositions, energies, strict=True)]
    entries += [PDEntry(Composition(el), 0.0) for el in ("Li", "Fe", "O")]
    expected = PhaseDiagram(entries).get_hull_energy_per_atom(Composition(asked))
    assert hull.hull_energy(asked) == pytest.approx(expected, abs=1e-6)


@pytest.mark.data
def test_mp20_hull_reproduces_the_official_energies(data_folder):
    folder = data_folder
    hull = ConvexHull.from_mp20(folder)
    rows = pd.read_csv(folder / "mp_20" / "val.csv.gz").dropna(
        subset=["e_above_hull", "formation_energy_per_atom"]
    )
    rows = rows.sample(150, random_state=0)
    found = [
        hull.above(f, e)
        for f, e in zip(rows["pretty_formula"], rows["formation_energy_per_atom"], strict=True)
    ]
    assert np.abs(np.array(found) - rows["e_above_hull"]).mean() < 0.006


def test_the_phases_of_the_hull_are_named():
    """The largest share of the atoms first; elements where nothing else is known; a phase by itself."""
    hull = ConvexHull(["NaCl", "KCl", "NaK"], [-2.1, -2.2, 0.1])
    assert hull.decomposition("NaCl") == "NaCl"
    assert hull.decomposition("Na2KCl4") == "NaCl + KCl + Cl2"
    assert hull.decomposition("NaK") == "Na + K"
    assert hull.decomposition("Fe2O3") == "O2 + Fe"
