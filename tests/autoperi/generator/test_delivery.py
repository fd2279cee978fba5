"""What is asked for is what is delivered: real symmetry, cell, finite geometry, warnings of the unknown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from moyopy import Cell, MoyoDataset

from autoperi.crystals.crystal import Crystal
from autoperi.crystals.symmetry import as_found
from autoperi.crystals.wyckoff import wyckoff_table
from autoperi.flow.settings import FlowSettings, Restart, Solver
from autoperi.generator import SampleConfig, load
from autoperi.generator.delivery import DeliveryWarning, generic, unseen
from autoperi.genes.request import GeneRequest
from tests.autoperi.shell import command

QUICK = SampleConfig(flow=FlowSettings(solver=Solver(steps=2), restart=Restart(rounds=0), corrections=1))


@pytest.fixture(scope="module")
def shipped():
    return load("mp_20")


def gene(group, letters, species):
    wyckoff = np.array([wyckoff_table().index(group, letter) for letter in letters])
    return Crystal(group, wyckoff, np.array(species), np.zeros((len(letters), 3)), np.zeros(6))


@pytest.mark.parametrize(
    ("group", "letters", "species", "number", "atoms"),
    [
        (221, "ac", [29, 29], 225, 1),
        (221, "ab", [11, 17], 221, 2),
        (221, "ab", [11, 11], 229, 1),
        (228, "ab", [11, 17], 224, 6),
        (75, "a", [6], 123, 1),
        (75, "ad", [6, 0], 75, 5),
        (1, "aaaa", [6, 7, 8, 9], 1, 4),
    ],
)
def test_a_gene_is_known_for_what_it_is(group, letters, species, number, atoms):
    """Orbits of one element without freedom may be another group or a smaller cell in every geometry."""
    real = generic(gene(group, letters, species))
    assert (real.space_group, real.n_atoms) == (number, atoms)


def test_a_crystal_is_named_by_its_real_symmetry():
    """One element on the corners and faces of a cubic cell is face-centred, whatever is said."""
    corners = replace(
        gene(221, "ac", [29, 29]), id="x", lattice_coords=np.array([0, 0, 0, 0, 0, np.log(3.6)])
    )
    real = as_found(corners)
    assert (real.gene, real.formula, real.id) == ("225:a", "Cu", "x")
    assert real.provenance["declared_gene"] == corners.gene
    assert as_found(real) is real


@pytest.mark.parametrize(
    "fields",
    [
        {"space_groups": [75]},
        {"formula": "Cu", "space_groups": [221]},
        {"formula": "C", "n_atoms": (4, 4)},
        {"formula": "NaCl", "crystal_system": "cubic", "n_atoms": (8, 8)},
    ],
)
@pytest.mark.filterwarnings("ignore::autoperi.generator.delivery.DeliveryWarning")
def test_group_and_cell_are_those_that_were_asked_for(shipped, fields):
    """An independent search finds in every crystal the group and the cell that it is said to have."""
    request = GeneRequest(**fields)
    drawn = shipped.sample(4, 1, request=request, config=QUICK)
    assert 1 <= len(drawn) <= 4
    for crystal in drawn:
        lattice, positions, numbers = crystal.expand()
        for symprec in (1e-4, 1e-2):
            found = MoyoDataset(Cell(lattice.tolist(), positions.tolist(), numbers.tolist()), symprec=symprec)
            assert (found.number, len(found.prim_std_cell.numbers)) == (crystal.space_group, crystal.n_atoms)
        assert request.fits(crystal)
        assert crystal.formula == (request.formula or crystal.formula)


def test_what_nothing_can_satisfy_is_refused_with_the_reason(shipped):
    """Rock salt's positions of 228 always have a smaller cell."""
    request = GeneRequest(gene="228:ab")
    with (
        pytest.warns(DeliveryWarning),
        pytest.raises(ValueError, match="228:ab is 224:ab with 6 atoms in its primitive cell"),
    ):
        shipped.sample(1, 0, request=request, config=QUICK)


def test_a_geometry_that_is_not_finite_is_a_named_failure(shipped):
    """Guidance beyond all measure gives no fewer crystals than asked for without a word."""
    with pytest.raises(ValueError, match="not finite"):
        shipped.sample(2, 0, conditions={"band_gap": 1.0}, config=replace(QUICK, guidance=1e30))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"formula": "FmO2"}, "holds Fm"),
        ({"allowed_elements": ["Fm"]}, "holds Fm"),
        ({"n_atoms": (200, 200)}, "200 to 200 atoms"),
        ({"space_groups": [168]}, "space group among"),
    ],
)
def test_what_no_training_crystal_has_is_said(shipped, fields, text):
    """A model says when it does not know."""
    (line,) = unseen(GeneRequest(**fields), shipped.empirical_genes())
    assert text in line
    assert line.startswith("no training crystal")
    assert not unseen(GeneRequest(formula="BaTiO3", n_atoms=(5, 20)), shipped.empirical_genes())
    assert not unseen(GeneRequest(denied_elements=["O"]), shipped.empirical_genes())
    carbon = load("carbon").empirical_genes()
    assert unseen(GeneRequest(denied_elements=["C"]), carbon) == [
        "no training crystal holds an element that may appear"
    ]


@pytest.mark.parametrize(("n", "seed", "text"), [(10**9, 0, "at most 1000000"), (1, -1, "seed of 0 or more")])
def test_numbers_at_the_edge_are_refused_before_anything_is_drawn(shipped, n, seed, text):
    with pytest.raises(ValueError, match=text):
        shipped.sample(n, seed)


def test_the_flow_cannot_be_asked_for_elements(shipped):
    """It draws species as it likes: a formula would be ignored."""
    config = replace(QUICK, species="flow")
    with pytest.raises(ValueError, match="species from the prior"):
        shipped.sample(1, 0, request=GeneRequest(formula="BaTiO3"), config=config)


def test_a_cold_temperature_is_answered(shipped):
    """Only the likeliest chemistry is left; nothing overflows."""
    cold = replace(QUICK.draw, temperature=1e-300)
    assert len(shipped.sample(2, 0, config=replace(QUICK, draw=cold))) == 2


def test_fewer_than_asked_is_status_one_and_said(tmp_path, monkeypatch, capsys):
    """The command delivers what it has, names the reason and does not end as if all were well."""
    from autoperi.generator import delivery

    seen = iter([True, False])
    monkeypatch.setattr(delivery, "is_finite", lambda _: next(seen))
    assert command("sample", "--n", 2, "--steps", 2, "--restarts", 0, "--out", tmp_path / "out") == 1
    assert "1 of 2 crystals are delivered" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--physics", "-1"), "--physics"),
        (("--band-gap", "nan"), "expected a value"),
        (("--condition", "colour=1"), "colour"),
        (("--condition", "band_gap"), "NAME=WINDOW"),
        (("--band-gap", "1", "--condition", "band_gap=2"), "twice"),
    ],
)
def test_wrong_targets_are_one_line_and_status_two(tmp_path, capsys, arguments, text):
    assert command("sample", "--n", 1, "--out", tmp_path / "out", *arguments) == 2
    assert text in capsys.readouterr().err


def test_no_default_draw_is_touched(shipped):
    """Without a request a crystal stays what it was declared to be."""
    torch.manual_seed(0)
    assert all("declared_gene" not in c.provenance for c in shipped.sample(3, 0, config=QUICK))
