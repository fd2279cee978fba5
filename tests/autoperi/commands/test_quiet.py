"""Users' terminals stay free of the warnings of libraries, for crystals of any element."""

import warnings

import pytest
from pymatgen.core import Lattice, Structure
from pymatgen.core.periodic_table import ElementBase

from autoperi import cli


@pytest.fixture
def noble(tmp_path, monkeypatch):
    """Sodium helide and argon; pymatgen warns each time it is asked for their electronegativity, not once."""
    folder = tmp_path / "noble"
    folder.mkdir()
    crystals = {
        "helide": Structure.from_spacegroup(225, Lattice.cubic(4.0), ["Na", "He"], [[0.25] * 3, [0, 0, 0]]),
        "argon": Structure.from_spacegroup(225, Lattice.cubic(5.3), ["Ar"], [[0, 0, 0]]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, structure in crystals.items():
            structure.to(filename=str(folder / f"{name}.cif"))
    asked = vars(ElementBase)["X"]  # newer versions keep the answer
    monkeypatch.setattr(ElementBase, "X", property(getattr(asked, "func", None) or asked.fget))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode",),
        ("predict", "--property", "band_gap"),
        ("relax", "--keep-symmetry", "--steps", 1),
        ("evaluate", "--reference", "."),
    ],
    ids=lambda arguments: arguments[0],
)
def test_elements_without_an_electronegativity_are_no_news(noble, tmp_path, arguments, monkeypatch):
    name, *options = map(str, arguments)
    monkeypatch.setattr("sys.argv", ["autoperi", name, str(noble), *options, "--out", str(tmp_path / "out")])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
