import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Composition

from autoperi.data.element_references import ElementReferences
from evaluation.stability.consistent_hull import consistent_hull, known_phases
from tests.evaluation.crystals import diamond, rocksalt

REFERENCES = ElementReferences({"Na": -1.0, "Cl": -2.0, "Si": -5.0, "Mg": -1.5, "O": -5.0})


def test_a_phase_of_the_hull_lies_on_it_whatever_the_potential_says():
    """Adding any energy per atom of an element to the potential changes nothing."""
    phases = [rocksalt(), diamond("Na", 6.0), diamond("Na", 7.0), diamond("Cl", 6.0), rocksalt("Mg", "O")]
    asked = []

    def energies(shift):
        def energies_of(structures):
            for s in structures:
                asked.append(s.reduced_formula)
                amounts = s.composition.fractional_composition.get_el_amt_dict()
                offset = shift * amounts.get("Na", 0) - 2 * shift * amounts.get("Cl", 0)
                yield {"NaCl": -3.0, "Na": -1.0 if s.volume < 300 else -0.8, "Cl2": -2.0}[
                    s.reduced_formula
                ] + offset

        return energies_of

    above = []
    for shift in (0.0, 0.7):
        hull, own = consistent_hull(
            [p.formula for p in phases], phases.__getitem__, ["NaCl2"], REFERENCES, energies(shift)
        )
        above.append(hull.above("NaCl2", own.formation_energy("NaCl2", -2.4 + shift / 3 - 4 * shift / 3)))
    assert "MgO" not in asked
    # Formation energy of NaCl is -1.5; NaCl2 holds 2/3 of its atoms as NaCl: hull at -1.
    assert above[0] == pytest.approx(-2.4 + 5 / 3 + 1.0)
    assert above[1] == pytest.approx(above[0])


def test_a_phase_without_energy_is_left_out_and_an_element_without_a_phase_keeps_its_reference():
    phases = [rocksalt(), diamond("Na", 6.0)]
    hull, own = consistent_hull(
        ["NaCl", "Na"], phases.__getitem__, ["NaCl"], REFERENCES, lambda s: iter([np.nan, -1.3][: len(s)])
    )
    assert hull.n_phases == 1
    assert own.energies["Na"] == -1.3
    assert own.energies["Cl"] == -2.0


def test_phases_of_several_tables_are_taken_once_by_their_id(tmp_path):
    """Rows without an id are all kept."""
    salt, silicon = rocksalt().to(fmt="cif"), diamond().to(fmt="cif")
    for name, split in (("mp_20", "val"), ("mpts_52", "test")):
        (tmp_path / name).mkdir()
        rows = pd.DataFrame([("mp-1", salt), ("", silicon)], columns=["material_id", "cif"])
        rows.to_csv(tmp_path / name / f"{split}.csv.gz", index=False)
    formulas, structure = known_phases(tmp_path, [("mp_20", "val"), ("mpts_52", "test")])
    assert [Composition(f).reduced_formula for f in formulas] == ["NaCl", "Si", "Si"]
    assert [structure(k).reduced_formula for k in range(3)] == ["NaCl", "Si", "Si"]


def test_a_table_without_formulas_says_so(tmp_path):
    (tmp_path / "mp_20").mkdir()
    rows = pd.DataFrame([("mp-1", "nothing")], columns=["material_id", "cif"])
    rows.to_csv(tmp_path / "mp_20" / "val.csv")
    with pytest.raises(ValueError, match="_chemical_formula_sum: got 'nothing'"):
        known_phases(tmp_path, [("mp_20", "val")])
