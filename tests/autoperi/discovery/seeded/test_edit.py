from dataclasses import replace

import numpy as np
import pytest

import autoperi
from autoperi.crystals.symmetry import symmetrise
from autoperi.discovery.seeded import Kept, edit_table, edited
from autoperi.discovery.seeded.edit import deviation
from autoperi.generator.delivery import DeliveryWarning
from evaluation.facts.symmetry import space_group
from tests.prototypes import prototype

NAMES = ["SiO2 quartz", "TiO2 rutile", "MgAl2O4 spinel", "ZrO2 baddeleyite", "Bi2Te3"]
SEEDS = [replace(symmetrise(prototype(name)), id=name) for name in NAMES]
EDITS = [
    {"species": True, "cell": True},
    {"sites": (0, 1)},
    {"redraw": ("species",)},
    {"redraw": ("cell",)},
    {"sites": (0,), "redraw": ("species", "cell")},
    {"sites": (0,), "redraw": ("species", "sites")},
]


@pytest.fixture(scope="module")
def generator():
    """The shipped one."""
    return autoperi.load()


@pytest.mark.parametrize("asked", EDITS, ids=str)
def test_what_is_kept_is_kept_and_the_group_too(generator, asked):
    """Elements, places and cell by the expanded crystals, the group by a symmetry search."""
    for crystal in SEEDS[::2]:
        kept = Kept.of(crystal, **asked)
        edits = edited(generator, crystal, kept, 2, seed=1)
        assert len(edits) == 2
        lattice, frac, _ = crystal.expand()
        for one in edits:
            assert space_group(one.to_structure(), 1e-3) == crystal.space_group
            assert (one.species == crystal.species)[kept.species].all()
            cell, places, _ = one.expand()
            atoms = np.repeat(kept.places, crystal.multiplicities)
            away = (places - frac)[atoms]
            assert np.abs((away - away.round()) @ cell).max(initial=0) < 1e-6
            if kept.cell:
                assert np.abs(cell - lattice).max() < 1e-6
            else:
                assert np.abs(cell - lattice).max() > 1e-3
            if not kept.species.all():
                assert (one.species != crystal.species).any() or kept.moves(crystal)
            assert deviation(crystal, one, kept) < 1e-6


def test_elements_alone_are_never_drawn_twice(generator):
    """Nor are they those of the crystal; crystal i does not depend on n."""
    crystal = SEEDS[1]
    kept = Kept.of(crystal, redraw=("species",))
    edits = edited(generator, crystal, kept, 12)
    names = [tuple(one.species.tolist()) for one in edits]
    assert len(set(names)) == 12
    assert tuple(crystal.species.tolist()) not in names
    assert all(np.array_equal(one.free, crystal.free) for one in edits)
    assert [tuple(c.species.tolist()) for c in edited(generator, crystal, kept, 3)] == names[:3]


def test_fewer_are_delivered_where_there_are_no_more(generator, monkeypatch):
    """With the reason; where nothing is delivered it is an error."""
    prior = type(generator.learned_genes())
    crystal = SEEDS[1]
    kept = Kept.of(crystal, sites=(0,), redraw=("species",))

    def always(name):
        def draw(_, crystals, *__, **___):
            return [replace(c, species=np.where(c.species, c.species, name)) for c in crystals]

        return draw

    monkeypatch.setattr(prior, "draw_species", always(16))
    with pytest.warns(DeliveryWarning, match="1 of 3 crystals.*have been drawn before"):
        (one,) = edited(generator, crystal, kept, 3)
    assert one.formula == "TiS2"
    monkeypatch.setattr(prior, "draw_species", always(8))
    with pytest.raises(ValueError, match="nothing that was drawn is an edit of TiO2: its elements"):
        edited(generator, crystal, kept, 3)


def test_crystals_with_more_symmetry_are_not_delivered(generator, monkeypatch):
    """Zincblende of one element is diamond."""
    crystal = symmetrise(prototype("ZnS zincblende"))
    prior = type(generator.learned_genes())

    def draw(_, crystals, *__, **___):
        return [replace(c, species=np.where(c.species, c.species, 30)) for c in crystals]

    monkeypatch.setattr(prior, "draw_species", draw)
    with pytest.raises(ValueError, match="216:ac is 227:a"):
        edited(generator, crystal, Kept.of(crystal, sites=(0,), redraw=("species",)), 1)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"sites": (0, 5)}, r"0 Ti:a, 1 O:f: got 5"),
        ({"sites": (-1,)}, r"got -1"),
        ({"species": True, "redraw": ("species",)}, "species cannot be both kept and redrawn"),
        ({"cell": True, "redraw": ("cell",)}, "cell cannot be both"),
        ({"sites": (0, 1), "redraw": ("species",)}, "nothing is left to redraw of TiO2"),
        ({"sites": (1,), "redraw": ("sites",)}, "free are 1"),
        ({"sites": (0, 1), "cell": True}, "nothing is left"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, said):
    """With the sites there are."""
    with pytest.raises(ValueError, match=said):
        Kept.of(SEEDS[1], **asked)


def test_deviation_is_in_angstroms_and_the_table_has_it():
    """A kept site moved by hand is found, one that is not kept is not missed."""
    crystal = SEEDS[1]
    moved = replace(crystal, free=crystal.free + np.array([[0, 0, 0], [0.01, 0, 0]]))
    kept = Kept.of(crystal, sites=(1,), cell=True)
    cart = 0.01 * np.linalg.norm(crystal.to_structure().lattice.matrix[0]) * np.sqrt(2)
    assert deviation(crystal, moved, kept) == pytest.approx(cart, rel=1e-6)
    assert deviation(crystal, moved, Kept.of(crystal, sites=(0,), cell=True)) == 0
    wide = replace(crystal, lattice_coords=crystal.lattice_coords + np.eye(6)[5] * 0.01)
    longest = max(crystal.to_structure().lattice.abc)
    assert deviation(crystal, wide, kept) == pytest.approx(longest * (np.exp(0.01) - 1))
    table = edit_table(crystal, [moved], kept, lambda every: [-1.0, np.inf][: len(every)])
    assert table["deviation"].tolist() == pytest.approx([0, cart])
    assert table["energy"].isna().tolist() == [False, True]
