"""Entries name the files of their folder; what a convolution must do is in networks/test_crystal_gnn.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from property_models import convolutions
from property_models.convolutions import CONVOLUTIONS, Convolution, LayerStack, Shape, convolution
from property_models.convolutions import convolution_class as class_of


def test_every_file_has_an_entry_and_every_entry_a_class():
    folder = Path(convolutions.__file__).parent
    files = {entry.split(".")[0] for entry in CONVOLUTIONS.values()}
    assert files == {file.stem for file in folder.glob("*.py")} - {"__init__", "interface", "stack"}
    kinds = [class_of(name) for name in CONVOLUTIONS]
    assert all(issubclass(kind, Convolution) for kind in kinds)
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_built_from_a_shape_alone(name):
    built = convolution(name, Shape(width=8, edge_width=4, layers=2, cutoff=4.0))
    assert isinstance(built, LayerStack) == class_of(name).is_layer
    assert sum(p.numel() for p in built.parameters()) > 0


def test_the_readme_has_a_row_for_each():
    text = (Path(convolutions.__file__).parent / "README.md").read_text()
    assert [name for name in CONVOLUTIONS if f"| `{name}` |" not in text] == []


def test_a_shipped_convolution_imports_no_other():
    """torch-geometric's operators take seconds to import: those who do not use them do not wait."""
    code = (
        "import sys; from property_models.convolutions import convolution_class as c; c('orbit'), c('painn');"
        "sys.exit('torch_geometric.nn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
