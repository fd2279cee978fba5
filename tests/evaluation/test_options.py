import pytest

from evaluation import EvaluationSettings
from evaluation.facts.matching import MatchSettings
from evaluation.options import settings_from_options
from evaluation.stability.protocols import PROTOCOLS
from evaluation.stability.stability import StabilitySettings


def test_without_options_the_conventions_are_the_default_ones():
    assert settings_from_options() == EvaluationSettings()
    assert settings_from_options(stability=True) == EvaluationSettings(stability=StabilitySettings())


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_protocol_brings_its_matcher(name):
    settings = settings_from_options(stability=True, protocol=name)
    assert settings.match == PROTOCOLS[name].matcher
    assert settings.protocol == name


def test_every_option_reaches_the_settings():
    settings = settings_from_options(3, True, True, "consistent", True, fmax=0.05, steps=40)
    assert settings.bootstrap.seed == 3
    assert settings.coverage is not None
    assert settings.coverage.seed == 3
    assert settings.stability is not None
    assert settings.stability.hull.phases == "consistent"
    text = settings.stability.protocol()
    for part in ("fmax 0.05 eV/Å", "at most 40 steps", "space group at 0.01 Å kept", "by the same potential"):
        assert part in text


def test_options_that_contradict_each_other_are_refused():
    for wrong in ({"hull": "consistent"}, {"keep_symmetry": True}, {"fmax": 0.05}, {"steps": 3}):
        with pytest.raises(ValueError, match="add --stability"):
            settings_from_options(**wrong)
    with pytest.raises(ValueError, match="known are cdvae, wyformer, mattergen, strict"):
        settings_from_options(protocol="mine")
    with pytest.raises(ValueError, match="positive"):
        settings_from_options(stability=True, steps=0)
    with pytest.raises(FileNotFoundError, match="an existing file"):
        settings_from_options(stability=True, hull="hull.csv")


def test_a_headline_that_could_not_be_printed_is_refused_before_anything_is_relaxed():
    with pytest.raises(ValueError, match=r"protocol 'cdvae' matches by .*stol=0.5.*got .*stol=0.3"):
        EvaluationSettings(stability=StabilitySettings(), protocol="cdvae")
    EvaluationSettings(match=MatchSettings(stol=0.1))  # without stability there is no S.U.N. to print
