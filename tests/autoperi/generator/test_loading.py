"""Shipped checkpoints by name and by class."""

import pytest

from autoperi.generator import loading
from autoperi.networks.checkpoint import CheckpointError


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """Two checkpoints, one of them of a class, and a class that has a recipe alone."""
    for name in ("mp_20", "garnet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "glass" / "recipes").mkdir(parents=True)
    monkeypatch.setattr(loading, "PRETRAINED", tmp_path)
    return tmp_path


def test_classes_are_what_is_shipped_beside_the_usual_checkpoint(pretrained):
    assert list(loading.shipped()) == ["garnet", "mp_20"]
    assert loading.classes() == {"garnet": pretrained / "garnet"}
    assert loading.of_class("garnet") == pretrained / "garnet"


@pytest.mark.usefixtures("pretrained")
@pytest.mark.parametrize("name", ["nonsense", "mp_20", "../mp_20", ""])
def test_an_unknown_class_names_the_known_ones(name):
    with pytest.raises(CheckpointError, match=r"expected a class among garnet: got .* --checkpoint FOLDER"):
        loading.of_class(name)


@pytest.mark.usefixtures("pretrained")
def test_a_class_without_weights_says_how_to_get_them():
    with pytest.raises(CheckpointError, match=r"only its recipe; autoperi train --config glass"):
        loading.of_class("glass")
    with pytest.raises(CheckpointError, match="expected a checkpoint folder or one of garnet, mp_20"):
        loading.load("glass")
