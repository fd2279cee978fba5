import errno
import os

import pytest
import torch

from autoperi.data.run_folder import FolderError
from autoperi.training.states import averaged_weights, read_state, weights_hash, write_state


def test_a_state_is_whole_or_as_it_was(tmp_path, monkeypatch):
    """On a full disk the state before stays, nothing is left beside it, and the file is named."""
    file = tmp_path / "last.ckpt"
    write_state(file, {"state_dict": {"network.a": torch.ones(3)}})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*what was trained before is kept.*last\.ckpt"):
        write_state(file, {"state_dict": {"network.a": torch.zeros(3)}})
    assert torch.equal(averaged_weights(file)["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_cut_state_is_named_with_what_to_do(tmp_path, share):
    file = tmp_path / "last.ckpt"
    write_state(file, {"state_dict": {"network.a": torch.ones(1000)}})
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(FolderError, match=r"last\.ckpt is damaged, or not ours .*delete it, and run again"):
        read_state(file)


def test_the_hash_is_of_names_and_numbers():
    weights = {"a": torch.ones(2), "b": torch.zeros(2)}
    assert weights_hash(weights) == weights_hash(dict(reversed(weights.items())))
    assert weights_hash(weights) != weights_hash({"a": torch.zeros(2), "b": torch.ones(2)})
