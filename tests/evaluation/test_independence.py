"""The judge shares with the generator how crystals are read and named, and nothing that was learned."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import autoperi.crystals
import autoperi.data

SHARED = (autoperi.crystals, autoperi.data)


def _modules(package):
    names = [m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [importlib.import_module(name) for name in names]


def test_the_whole_judge_loads_of_the_other_rooms_what_is_shared_alone():
    """In a fresh process, every module of the judge."""
    code = """
import importlib, json, pkgutil, sys, evaluation
for module in pkgutil.walk_packages(evaluation.__path__, "evaluation."):
    importlib.import_module(module.name)
print(json.dumps([m for m in sys.modules if m.split(".")[0] in ("autoperi", "property_models")]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert "autoperi.crystals.hull" in loaded
    allowed = [package.__name__ for package in SHARED]
    assert [m for m in loaded if m != "autoperi" and not m.startswith(tuple(allowed))] == []


@pytest.mark.parametrize("package", SHARED)
def test_what_is_shared_has_no_network_and_no_weights(package):
    modules = _modules(package)
    assert len(modules) > 5
    for module in modules:
        classes = [c for _, c in inspect.getmembers(module, inspect.isclass)]
        assert not [c for c in classes if issubclass(c, torch.nn.Module)], module.__name__
        source = inspect.getsource(module)
        for loader in ("load_state_dict", "safetensors.torch", "nn.Parameter", "lightning"):
            assert loader not in source, f"{loader} in {module.__name__}"
    files = [
        p.suffix for p in Path(package.__path__[0]).rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    assert set(files) <= {".py", ".npz", ".json", ".html", ".css", ".js"}
