"""Slabs: as thick, as wide and as far apart as asked; what cannot stand alone is named."""

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from autoperi.discovery.surfaces.slabs import (
    SlabSettings,
    cut,
    low_planes,
    miller_index,
    read_structure,
    slab_for_molecules,
    standing,
    vacuum_of,
)
from tests.prototypes import prototype

MAGNESIA = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.212), ["Mg", "O"], [[0] * 3, [0.5] * 3])


def test_planes_are_read_as_people_write_them():
    assert miller_index("110") == (1, 1, 0)
    assert miller_index("1,-1,0") == (1, -1, 0)
    assert set(low_planes(prototype("Cu fcc"))) == {(1, 1, 1), (1, 1, 0), (1, 0, 0)}
    with pytest.raises(ValueError, match="of a plane: got 0 0 0"):
        miller_index("000")
    for wrong in ("11", "1,1", "abc", ""):
        with pytest.raises(ValueError, match="expected a Miller index such as 111"):
            miller_index(wrong)


def test_a_slab_is_as_thick_wide_and_lonely_as_asked():
    settings = SlabSettings(thickness=8.0, vacuum=12.0, width=5.0)
    found, left_out = cut(prototype("Cu fcc"), (1, 1, 1), settings)
    (slab,) = found.values()
    assert left_out == []
    assert vacuum_of(slab) >= 12.0
    heights = slab.cart_coords[:, 2]
    assert np.ptp(heights) + 3.6149 / np.sqrt(3) >= 8.0
    a, b, c = slab.lattice.matrix
    assert min(np.linalg.norm(np.cross(a, b)) / np.linalg.norm([a, b], axis=1)) >= 5.0
    assert abs(c @ a) < 1e-6 > abs(c @ b)
    assert slab.is_symmetric()


def test_polar_slabs_are_left_out_by_name():
    assert cut(MAGNESIA, (1, 1, 1)) == ({}, ["termination 0: polar, 0.91 e/Å"])
    with pytest.raises(ValueError, match=r"MgO \(1, 1, 1\) that can stand alone: termination 0: polar"):
        slab_for_molecules(MAGNESIA, (1, 1, 1))
    rutile, left_out = cut(prototype("TiO2 rutile"), (1, 1, 0))
    assert list(rutile) == [1]
    assert rutile[1].reduced_formula == "TiO2"
    assert left_out[0].startswith("termination 0: polar")
    assert len(slab_for_molecules(MAGNESIA, (1, 0, 0))) > len(MAGNESIA)


def test_what_is_no_slab_is_refused():
    with pytest.raises(ValueError, match=r"vacuum of 8 Å or more.*got 10 and 3 Å"):
        SlabSettings(vacuum=3.0)
    with pytest.raises(ValueError, match="got 0 0 0, which is none"):
        cut(MAGNESIA, (0, 0, 0))
    with pytest.raises(ValueError, match=r"expected a slab with a vacuum.*gap of MgO is 2.1 Å"):
        standing(MAGNESIA)


def test_a_slab_across_the_border_of_its_cell_is_put_together():
    slab = slab_for_molecules(MAGNESIA, (1, 0, 0))
    torn = slab.copy()
    torn.translate_sites(range(len(torn)), [0.1, 0.2, 0.5])
    whole = standing(torn)
    assert np.ptp(whole.frac_coords[:, 2]) == pytest.approx(np.ptp(slab.frac_coords[:, 2]))
    assert np.ptp(torn.frac_coords[:, 2]) > 0.8
    assert whole.distance_matrix == pytest.approx(slab.distance_matrix, abs=1e-6)


def test_one_crystal_is_read_or_said_to_be_missing(tmp_path):
    MAGNESIA.to(str(tmp_path / "a.cif"))
    assert len(read_structure(tmp_path / "a.cif")) == 8
    MAGNESIA.to(str(tmp_path / "b.cif"))
    with pytest.raises(ValueError, match=r"expected one crystal in .*: got 2"):
        read_structure(tmp_path)
    (tmp_path / "c.cif").write_text("nothing")
    with pytest.raises(ValueError, match=r"expected one crystal in .*c\.cif: got expected a CIF"):
        read_structure(tmp_path / "c.cif")
