"""What a CIF states about itself is compared with what is read: no atom is invented, dropped or doubled."""

import contextlib
import time

import numpy as np
import pytest

from autoperi.data.reading import ReadError, parse_text
from autoperi.data.reading.cif import _element, _formula
from autoperi.data.reading.cif_syntax import parse_block
from autoperi.data.reading.space_groups import named_groups

SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5"
COLUMNS = (
    "_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z"
)


def cif(atoms, cell=(5.64, 5.64, 5.64, 90, 90, 90), stated="", operations="x,y,z", columns=COLUMNS):
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in zip(names, cell, strict=True)), stated]
    if operations:
        quoted = [line if "'" in line else f"'{line}'" for line in operations.split("\n")]
        lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *quoted]
    return "\n".join([*lines, "loop_", *columns.split("\n"), atoms, ""])


def counts(text):
    return {str(e): int(n) for e, n in parse_text(text).composition.items()}


def refused(text):
    with pytest.raises(ReadError) as caught:
        parse_text(text)
    return str(caught.value)


HEX = (2.95, 2.95, 4.68, 90, 90, 120)


def test_special_positions_of_four_digits_are_one_atom():
    """P 6/m m m with a site at 2c (1/3, 2/3, 0): two atoms, exactly a third of the axes away."""
    text = cif("B1 B 0.3333 0.6667 0.5\nMg1 Mg 0 0 0", HEX, "_space_group_IT_number 191", "")
    structure = parse_text(text)
    assert counts(text) == {"Mg": 1, "B": 2}
    boron = structure.frac_coords[[site.specie.symbol == "B" for site in structure]]
    assert np.allclose(np.sort(boron[:, 0]), [1 / 3, 2 / 3], atol=1e-9)


def test_symbol_of_a_language_model_is_expanded():
    """A real symbol and Z, but x,y,z as the only operation and the asymmetric unit as atoms."""
    group = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
    assert counts(cif(SALT, stated=group + "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4")) == {
        "Na": 4,
        "Cl": 4,
    }
    assert counts(cif(SALT, stated=group + "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4")) == {
        "Na": 4,
        "Cl": 4,
    }
    assert "225" in refused(cif(SALT, stated=group))


def test_all_atoms_beside_a_symbol_are_not_doubled():
    """Every atom of the cell listed, x,y,z, and the group named: the group maps the atoms onto themselves."""
    fcc = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    atoms = [f"Na Na {x} {y} {z}" for x, y, z in fcc] + [f"Cl Cl {x + 0.5} {y} {z}" for x, y, z in fcc]
    assert counts(cif("\n".join(atoms), stated="_space_group_IT_number 225")) == {"Na": 4, "Cl": 4}


@pytest.mark.parametrize("operations", [
    "'x,y,z' # identity\n'-x,-y,-z' # inversion", "'x,y,z'\n'-x,-y,-z' # inversion", "'x,y,z'\n\t'-x,\t-y,\t-z'", "\t'x,y,z'\t\n\t'-x, -y, -z'", "x, y, z\n'-x,-y,-z'",  # noqa: E501
    "'+x,+y,+z'\n'-X,-Y,-Z'",
])  # fmt: skip
def test_comments_and_tabs_in_the_operations(operations):
    assert counts(cif("C1 C 0.1 0.2 0.3", (4, 5, 6, 80, 85, 95), "", operations)) == {"C": 2}


def test_numbered_operations_without_quotes():
    text = cif("C1 C 0.1 0.2 0.3", (4, 5, 6, 80, 85, 95), "", "").replace(
        "loop_\n_atom",
        "loop_\n_symmetry_equiv_pos_site_id\n_symmetry_equiv_pos_as_xyz\n1 x,y,z\n2 -x, -y, -z\nloop_\n_atom",
    )
    assert counts(text) == {"C": 2}


@pytest.mark.parametrize(("symbol", "cell", "number", "operations"), [
    ("F d -3 m :2", (5.4, 5.4, 5.4, 90, 90, 90), 227, 192), ("F d -3 m :1", (5.4, 5.4, 5.4, 90, 90, 90), 227, 192),  # noqa: E501
    ("F d -3 m S", (5.4, 5.4, 5.4, 90, 90, 90), 227, 192),
    ("R -3 c :R", (5.1, 5.1, 5.1, 55, 55, 55), 167, 12), ("R -3 c", (5.1, 5.1, 5.1, 55, 55, 55), 167, 12),
    ("R -3 c", (4.8, 4.8, 13, 90, 90, 120), 167, 36), ("R-3c:H", (4.8, 4.8, 13, 90, 90, 120), 167, 36),
    ("P 21/n", (5, 6, 7, 90, 100, 90), 14, 4), ("P 1 21/n 1", (5, 6, 7, 90, 100, 90), 14, 4),
    ("P 21/b", (5, 6, 7, 90, 90, 100), 14, 4), ("C m c a", (5, 6, 7, 90, 90, 90), 64, 16),
    ("F m 3 m", (5, 5, 5, 90, 90, 90), 225, 192), ("I 1 2/a 1", (5, 6, 7, 90, 100, 90), 15, 8),
])  # fmt: skip
def test_settings_by_symbol_alone(symbol, cell, number, operations):
    matrix = parse_text(cif("C1 C 0.1 0.2 0.3", cell)).lattice.matrix
    block = parse_block(cif("C1 C 0 0 0", cell, f"_symmetry_space_group_name_H-M '{symbol}'", ""))
    found = named_groups(block, matrix)
    assert [(group.number, len(group)) for group in found] == [(number, operations)]


def test_origin_of_diamond():
    """8a is (1/8, 1/8, 1/8) in choice 2; without a choice the formula decides, else it is refused."""
    for choice, x in ((2, 0.125), (1, 0)):
        stated = f"_symmetry_space_group_name_H-M 'F d -3 m :{choice}'"
        assert counts(cif(f"C1 C {x} {x} {x}", (3.57,) * 3 + (90,) * 3, stated, "")) == {"C": 8}
    stated = "_symmetry_space_group_name_H-M 'F d -3 m'"
    assert "setting" in refused(cif("C1 C 0.125 0.125 0.125", (3.57,) * 3 + (90,) * 3, stated, ""))
    stated += "\n_chemical_formula_sum C\n_cell_formula_units_Z 8"
    assert counts(cif("C1 C 0.125 0.125 0.125", (3.57,) * 3 + (90,) * 3, stated, "")) == {"C": 8}


def test_listed_operations_beat_the_symbol():
    stated = "_symmetry_space_group_name_H-M 'P 21/n'\n_symmetry_Int_Tables_number 14"
    listed = "x,y,z\n-x,y+1/2,-z+1/2\n-x,-y,-z\nx,-y+1/2,z+1/2"
    structure = parse_text(cif("C1 C 0.1 0.2 0.3", (5, 6, 7, 90, 100, 90), stated, listed))
    assert any(np.allclose(site.frac_coords % 1, (0.1, 0.3, 0.8)) for site in structure)


def test_operations_that_are_no_group_are_refused():
    """One of four lost: half a crystal."""
    assert "no group" in refused(
        cif("C1 C 0.1 0.2 0.3", (5, 6, 7, 90, 100, 90), "", "x,y,z\n-x,y+1/2,-z+1/2\n-x,-y,-z")
    )


@pytest.mark.parametrize("stated", [
    "_chemical_formula_sum 'Mg H2 O2'\n_cell_formula_units_Z 1", "_chemical_formula_sum 'H2 Mg O2'",
    "_chemical_formula_sum 'D2 Mg O2'",
])  # fmt: skip
def test_hydrogen_without_coordinates(stated):
    assert "hydrogen" in refused(cif("Mg Mg 0 0 0\nO O 0.33 0.67 0.22\nO O 0.67 0.33 0.78", HEX, stated))


def test_attached_hydrogens():
    columns = COLUMNS + "\n_atom_site_attached_hydrogens"
    assert "hydrogen" in refused(cif("Mg Mg 0 0 0 0\nO O .3 .6 .2 1\nO O .6 .3 .7 1", HEX, columns=columns))
    assert counts(cif("Mg Mg 0 0 0 0\nO O .3 .6 .2 .", HEX, columns=columns)) == {"Mg": 1, "O": 1}


@pytest.mark.parametrize("stated", [
    "_chemical_formula_sum 'Na2 Cl'", "_chemical_formula_sum 'Na Cl'\n_cell_formula_units_Z 4",
    "_chemical_formula_sum 'Na Br'", "_chemical_formula_sum 'Na2 Cl2'",
])  # fmt: skip
def test_a_formula_that_is_not_that_of_the_atoms(stated):
    assert "contradicts itself" in refused(cif(SALT, stated=stated))


def test_a_multiplicity_that_is_not_that_of_the_site():
    columns = COLUMNS + "\n_atom_site_symmetry_multiplicity"
    inversion = "x,y,z\n-x,-y,-z"
    assert counts(cif("C1 C .1 .2 .3 2\nO O 0 0 0 1", columns=columns, operations=inversion)) == {
        "C": 2,
        "O": 1,
    }
    assert "expected 4 atoms" in refused(cif("C1 C .1 .2 .3 4", columns=columns, operations=inversion))


@pytest.mark.parametrize(("label", "formula", "element"), [
    ("Na1", "", "Na"), ("O1w", "", "O"), ("OW1", "", "O"), ("Ca1", "", "Ca"), ("CA1", "C6 H6", "C"), ("CA1", "Ca O", "Ca"),  # noqa: E501
    ("C1A", "", "C"), ("D1", "", "H"),
])  # fmt: skip
def test_elements_by_label(label, formula, element):
    assert _element(label, False, frozenset(_formula(formula))) == element


@pytest.mark.parametrize("label", ["Wat", "WAT1", "H2O", "CA1", "Q1", "Lig"])
def test_labels_in_doubt_are_refused(label):
    assert "element" in refused(
        cif(f"{label} 0 0 0", columns=COLUMNS.replace("_atom_site_type_symbol\n", ""))
    )


@pytest.mark.parametrize(
    ("occupancy", "reason"), [("0", "(0, 1]"), ("-0.5", "(0, 1]"), ("1.5", "(0, 1]"), ("0.5", "partial")]
)
def test_impossible_and_partial_occupancies(occupancy, reason):
    assert reason in refused(
        cif(f"Na Na 0 0 0 1\nCl Cl .5 .5 .5 {occupancy}", columns=COLUMNS + "\n_atom_site_occupancy")
    )


def test_one_element_in_two_oxidation_states_on_one_site():
    atoms = "Fe1 Fe2+ 0 0 0 0.333\nFe2 Fe3+ 0 0 0 0.667\nO1 O2- .5 .5 .5 1"
    assert counts(cif(atoms, columns=COLUMNS + "\n_atom_site_occupancy")) == {"Fe": 1, "O": 1}


def test_atoms_cut_off_at_the_end():
    """Five atoms of Mg8 Al16 O32 missing."""
    atoms = [
        f"{e} {e} {i / 7 % 1:.3f} {i / 11 % 1:.3f} {i / 13 % 1:.3f}"
        for i, e in enumerate(["Mg"] * 8 + ["Al"] * 16 + ["O"] * 32)
    ]
    stated = "_chemical_formula_sum 'Mg8 Al16 O32'"
    assert sum(counts(cif("\n".join(atoms), (8.1,) * 3 + (90,) * 3, stated)).values()) == 56
    assert "cut off" in refused(cif("\n".join(atoms[:-5]), (8.1,) * 3 + (90,) * 3, stated))


def test_magnetic_operations():
    text = cif("Fe1 Fe .1 .2 .3", operations="").replace(
        "loop_\n_atom",
        "loop_\n_space_group_symop_magn_operation.id\n_space_group_symop_magn_operation.xyz\n1 x,y,z,+1\n2 -x,-y,-z,-1\n"  # noqa: E501
        "loop_\n_space_group_symop_magn_centering.id\n_space_group_symop_magn_centering.xyz\n1 x,y,z,+1\n2 x,y,z+1/2,-1\nloop_\n_atom",  # noqa: E501
    )
    assert counts(text) == {"Fe": 4}


@pytest.mark.parametrize("text", [
    cif(SALT, operations="'" + " " * 20_000 + "x,y,z'"), cif(SALT, operations=" " * 20_000 + "x,y,z"),
    cif(SALT + "\n" * 100_000), cif(SALT, stated="'a " * 30_000), cif(SALT, stated="_x '" + "a'b" * 30_000),
    cif(SALT, operations="x" + "+x" * 50_000 + ",y,z"),
])  # fmt: skip
def test_text_that_is_long_for_its_own_sake(text):
    began = time.process_time()
    with contextlib.suppress(ReadError):
        parse_text(text)
    assert time.process_time() - began < 2


def test_too_many_atoms_and_impossible_cells():
    many = "\n".join(f"C C {i / 100_000:.5f} 0 0" for i in range(30_000))
    began = time.process_time()
    assert "20000" in refused(cif(many))
    assert time.process_time() - began < 5
    assert "too long" in refused(cif(SALT, (4, 4, 1000, 90, 90, 179.9)))
    for cell in (
        (1e9, 5, 5, 90, 90, 90),
        (4, 4, 10_000, 90, 90, 90),
        (-5, 5, 5, 90, 90, 90),
        (5, 5, 5, 90, 90, 0),
        (5, 5, 5, 30, 30, 150),
    ):
        assert refused(cif(SALT, cell))


def test_far_coordinates_are_wrapped():
    structure = parse_text(cif("Na Na 999999.25 0 0\nCl Cl 0.5 0.5 0.5"))
    assert np.abs(structure.frac_coords).max() < 2
    assert structure.frac_coords[0, 0] == pytest.approx(0.25)
