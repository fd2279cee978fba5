import os
import signal
from pathlib import Path

import pytest
import torch

import tests.shapes  # noqa: F401 (checks the rooms that are imported after it)
from tests.prototypes import PROTOTYPES, prototype

torch.set_num_threads(1)
# A shell's background job ignores Ctrl-C, one under nohup the hangup as well, and so would the processes that
# tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item):
    """Tests marked ``gpu`` are skipped, with the reason in the summary, where there is no CUDA."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")


@pytest.fixture(scope="session")
def prototypes():
    """About thirty well-known crystals with published lattice constants, by name."""
    return {name: prototype(name) for name in PROTOTYPES}


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets; tests that ask for it carry the mark ``data``."""
    folder = os.environ.get("AUTOPERI_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("AUTOPERI_DATA does not name the folder of data sets")
    return Path(folder)
