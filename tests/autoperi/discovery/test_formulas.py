import pytest

import autoperi
from autoperi.discovery.candidates import CellRequest
from autoperi.discovery.formulas import checked, read_formulas


@pytest.fixture(scope="module")
def generator():
    """The shipped one."""
    return autoperi.load()


def test_words_and_files_are_read(tmp_path):
    """A file stands for its lines; comments and empty lines do not count."""
    file = tmp_path / "formulas.txt"
    file.write_text("BaTiO3\n\n  NaCl  # salt\n# nothing\n")
    assert read_formulas(["MgO", str(file)]) == ["MgO", "BaTiO3", "NaCl"]
    file.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match=r"expected formulas in .*formulas\.txt, one a line: got none"):
        read_formulas([str(file)])


def test_formulas_are_reduced(generator):
    """Names are pymatgen's."""
    salt, titanate = checked(["Cl30Na30", "TiBaO3"], generator, CellRequest())
    assert (salt.name, salt.amounts, salt.asked) == ("NaCl", {17: 1, 11: 1}, "Cl30Na30")
    assert titanate.name == "BaTiO3"


@pytest.mark.parametrize(
    ("formulas", "cell", "said"),
    [
        (["Xx2O"], {}, "'Xx2O': expected element symbols .* got .'Xx'"),
        (["D2O"], {}, "'D2O': expected elements, isotopes"),
        (["Fe0.5O"], {}, "whole numbers"),
        ([""], {}, "formula"),
        ([], {}, "at least one formula"),
        (["NaCl", "Na2Cl2"], {}, "'Na2Cl2': expected each formula once, it is 'NaCl' too"),
        (["C31H29"], {}, "'C31H29': expected at most 20 atoms .* got 60"),
        (["TiO2"], {"atoms": 7}, "multiple of 3"),
        (["TiO2"], {"atoms": 0}, "--atoms"),
        (["TiO2"], {"atoms": 24}, "at most 20: got 24"),
        (["TiO2"], {"space_group": 231}, "from 1 to 230"),
    ],
)
def test_what_no_crystal_can_have_is_refused(generator, formulas, cell, said):
    """The message names the formula, or what is wrong with it."""
    with pytest.raises(ValueError, match=said):
        checked(formulas, generator, CellRequest(**cell))


def test_wrong_formulas_are_named_together(generator):
    """Three of them, and how many more."""
    with pytest.raises(ValueError, match=r"Qa.*Qb.*Qc.*and 1 more"):
        checked(["Qa", "Qb", "NaCl", "Qc", "Qd"], generator, CellRequest())
