"""Crystals that are refused after they were drawn: others take their numbers, and nothing else changes."""

import pytest

from autoperi.crystals.crystal import Crystal
from autoperi.data.files import read_crystals
from autoperi.generator import load
from autoperi.generator.delivery import DeliveryWarning
from tests.autoperi.generator.test_delivery import QUICK
from tests.autoperi.shell import command


@pytest.fixture(scope="module")
def shipped():
    return load("mp_20")


def _small(crystals) -> list[Crystal | str]:
    """Refuses what has more than eight atoms."""
    return [c if c.n_atoms <= 8 else "more than eight atoms" for c in crystals]


def test_refused_crystals_are_drawn_again(shipped):
    """What was kept at once is what is drawn without a choice; what was not is another, kept, crystal."""
    plain = shipped.sample(12, 3, config=QUICK)
    told = []
    kept = shipped.sample(
        12, 3, config=QUICK, keep=_small, progress=lambda stage, n: told.append(n * (stage == "geometry"))
    )
    assert [c.id for c in kept] == [c.id for c in plain]
    assert all(c.n_atoms <= 8 for c in kept)
    good = [k for k, c in enumerate(plain) if c.n_atoms <= 8]
    assert 0 < len(good) < 12
    assert [(kept[k].gene, kept[k].formula) for k in good] == [
        (plain[k].gene, plain[k].formula) for k in good
    ]
    assert sum(told) == 12
    assert {k for k, c in enumerate(kept) if c.provenance["refused"] == 0} == set(good)
    assert "refused" not in plain[0].provenance


def test_crystal_i_does_not_depend_on_how_many_are_kept(shipped):
    all_of_them = shipped.sample(8, 3, config=QUICK, keep=_small)
    last = shipped.sample(3, 3, config=QUICK, keep=_small, first=5)
    assert [(c.id, c.gene, c.formula) for c in last] == [(c.id, c.gene, c.formula) for c in all_of_them[5:]]


def test_what_is_never_kept_is_said(shipped):
    """All refused is an error with the reason; some refused to the end leave fewer, with a warning."""
    with pytest.raises(ValueError, match=r"nothing that was drawn .*: never \(14 times\)"):
        shipped.sample(2, 0, config=QUICK, keep=lambda crystals: ["never"] * len(crystals))

    def first_alone(crystals):
        return [c if c.id == "000000" else "not the first" for c in crystals]

    with pytest.warns(DeliveryWarning, match="1 of 2 crystals are delivered.*: not the first"):
        assert len(shipped.sample(2, 0, config=QUICK, keep=first_alone)) == 1


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        (lambda crystals: list(crystals)[1:], "one item for each of 2 crystals: got 1"),
        (lambda _: None, "one item for each of 2 crystals: got NoneType"),
        (lambda _: [True, False], "or why it is refused as str: got True"),
    ],
)
def test_what_says_anything_else_of_crystals_is_refused(shipped, keep, told):
    with pytest.raises(ValueError, match=told):
        shipped.sample(2, 0, config=QUICK, keep=keep)


def test_a_likelihood_has_the_number_of_its_crystal(tmp_path, monkeypatch):
    """Where crystal 0 is never kept, the noise of crystal 1 is still its own."""
    from autoperi.flow.sampler import FlowModel
    from property_models.uses import screen

    known, plain = [], FlowModel.log_prob

    def log_prob(flow, crystals, *, indices, **others):
        known.append(list(indices))
        return plain(flow, crystals, indices=indices, **others)

    monkeypatch.setattr(screen, "stable_within", lambda *_: _all_but_the_first)
    monkeypatch.setattr(FlowModel, "log_prob", log_prob)
    quick = ("--n", 2, "--steps", 2, "--restarts", 0, "--corrections", 1, "--workers", 1)
    out = tmp_path / "out"
    assert command("sample", *quick, "--log-likelihood", "--stable", 1, "--out", out) == 1
    assert [c.id for c in read_crystals(out)] == ["000001"]
    assert known == [[1]]


def test_a_limit_that_is_no_number_is_refused_before_anything_is_done(tmp_path):
    assert command("sample", "--n", 1, "--stable", "nan", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def _all_but_the_first(crystals) -> list[Crystal | str]:
    return ["the first" if c.id == "000000" else c for c in crystals]
