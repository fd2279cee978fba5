import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoperi.data.run_folder import FolderError
from autoperi.training import folder as folders
from autoperi.training.folder import claim, occupied

TRAINING = {"flow": {"lr": 1e-3, "epochs": 5}, "data": "a" * 64, "sizes": (1, 2)}


def test_the_same_training_goes_on(tmp_path):
    """Again as it was, or with more of what may grow; the larger number is then the one to beat."""
    claim(tmp_path, TRAINING, ["flow.epochs"])
    claim(tmp_path, TRAINING, ["flow.epochs"])
    more = {**TRAINING, "flow": {"lr": 1e-3, "epochs": 7}}
    claim(tmp_path, more, ["flow.epochs"])
    with pytest.raises(FolderError, match=r"begun with: got flow\.epochs = 5 for 7; use an empty folder"):
        claim(tmp_path, TRAINING, ["flow.epochs"])


@pytest.mark.parametrize(
    ("other", "text"),
    [
        ({**TRAINING, "flow": {"lr": 1e-5, "epochs": 5}}, "got flow.lr = 1e-05 for 0.001;"),
        ({**TRAINING, "data": "b" * 64}, 'got data = "bbbbbb'),
        ({**TRAINING, "start": "x"}, 'got start = "x" for null;'),
        ({"flow": TRAINING["flow"], "sizes": [1, 2]}, "got data = null for"),
    ],
)
def test_another_training_is_refused_and_named(tmp_path, other, text):
    claim(tmp_path, TRAINING)
    before = (tmp_path / "training.json").read_bytes()
    with pytest.raises(FolderError) as refused:
        claim(tmp_path, other)
    assert text in str(refused.value)
    assert (tmp_path / "training.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", '{"flow": '])
def test_a_damaged_claim_is_named(tmp_path, content):
    (tmp_path / "training.json").write_text(content)
    with pytest.raises(FolderError, match=r"training\.json, which says what is trained there, is damaged"):
        claim(tmp_path, TRAINING)


def test_states_without_a_claim_are_not_gone_on_with(tmp_path):
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(FolderError, match=r"expected .*training\.json"):
        claim(tmp_path, TRAINING)


def _python(code: str, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=os.environ
    )


_HOLD = """
import sys, time, subprocess
from pathlib import Path
from autoperi.training.folder import occupied
with occupied(Path(sys.argv[1])):
    if len(sys.argv) > 2:
        command = [sys.executable, "-c", sys.argv[2], sys.argv[1]]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        print(child.pid, flush=True)
    else:
        print("held", flush=True)
    time.sleep(100)
"""


def test_two_trainings_in_a_folder_are_refused(tmp_path, monkeypatch):
    """While one holds the folder; when it is killed the next may have it. Nested use in a process is fine."""
    monkeypatch.setattr(folders, "_PATIENCE", 0.2)
    first = _python(_HOLD, tmp_path)
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(FolderError, match="expected no other training in"), occupied(tmp_path):
            pass
    finally:
        first.kill()
        first.wait()
    with occupied(tmp_path), occupied(tmp_path):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_processes_of_a_training_end_with_it(tmp_path, how):
    """Killed or terminated, it leaves nothing running behind."""
    first = _python(_HOLD, tmp_path, _HOLD)
    child = int(first.stdout.readline())
    first.send_signal(how)
    first.wait()
    for _ in range(100):
        if not _runs(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child of a training outlived it by ten seconds")


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def _terminated(folder: Path) -> None:
    with occupied(folder):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


def test_sigterm_is_as_an_interrupt(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        _terminated(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
