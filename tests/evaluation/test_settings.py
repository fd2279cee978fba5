from typing import get_args

import pytest

from autoperi.data import cache
from evaluation import EvaluationSettings
from evaluation.facts.matching import MatchSettings
from evaluation.options import Options, ProtocolName
from evaluation.stability.protocols import PROTOCOLS, named_protocol
from evaluation.stability.stability import StabilitySettings


def test_without_options_the_conventions_are_the_default_ones():
    assert EvaluationSettings.of(Options()) == EvaluationSettings()
    assert EvaluationSettings.of(Options(stability=True)) == EvaluationSettings(stability=StabilitySettings())


def test_every_protocol_can_be_asked_for():
    assert set(get_args(ProtocolName)) == set(PROTOCOLS)


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_protocol_brings_its_matcher(name):
    settings = EvaluationSettings.of(Options(stability=True, protocol=name))
    assert settings.match == PROTOCOLS[name].matcher
    assert settings.protocol == name


def test_every_option_reaches_the_settings(monkeypatch):
    monkeypatch.setattr(cache, "find_spec", lambda _: "there")
    settings = EvaluationSettings.of(
        Options(True, True, ("chgnet", "sevennet"), "consistent", True, fmax=0.05, steps=40, seed=3)
    )
    assert settings.bootstrap.seed == 3
    assert settings.coverage is not None
    assert settings.coverage.seed == 3
    assert settings.stability is not None
    assert settings.stability.hull.phases == "consistent"
    first, second = settings.stability.each()
    assert "SevenNet-l3i5 from where CHGNet 0.3.0 ended" in second.protocol()
    text = first.protocol()
    for part in ("fmax 0.05 eV/Å", "at most 40 steps", "space group at 0.01 Å kept", "by the same potential"):
        assert part in text


def test_options_that_contradict_each_other_are_refused():
    for wrong in (
        {"hull": "consistent"},
        {"keep_symmetry": True},
        {"fmax": 0.05},
        {"steps": 3},
        {"potential": ("chgnet", "sevennet")},
    ):
        with pytest.raises(ValueError, match="add --stability"):
            EvaluationSettings.of(Options(**wrong))
    with pytest.raises(ValueError, match="known are cdvae, wyformer, mattergen, strict"):
        named_protocol("mine")
    for wrong in ((), ("chgnet", "chgnet")):
        with pytest.raises(ValueError, match="each once: got"):
            EvaluationSettings.of(Options(stability=True, potential=wrong))
    with pytest.raises(ValueError, match="positive"):
        EvaluationSettings.of(Options(stability=True, steps=0))
    with pytest.raises(FileNotFoundError, match="an existing file"):
        EvaluationSettings.of(Options(stability=True, hull="hull.csv"))


def test_a_headline_that_could_not_be_printed_is_refused_before_anything_is_relaxed():
    with pytest.raises(ValueError, match=r"protocol 'cdvae' matches by .*stol=0.5.*got .*stol=0.3"):
        EvaluationSettings(stability=StabilitySettings(), protocol="cdvae")
    EvaluationSettings(match=MatchSettings(stol=0.1))  # without stability there is no S.U.N. to print


def test_a_potential_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(cache, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"package sevenn: pip install 'autoperi-gnn\[judge\]'"):
        EvaluationSettings.of(Options(stability=True, potential=("sevennet",)))
