from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase.calculators.lj import LennardJones
from pymatgen.core import Lattice, Structure

from autoperi.data.element_references import ElementReferences
from autoperi.data.reading import Sample
from evaluation.facts.matching import MatchSettings
from evaluation.relaxation import batch
from evaluation.relaxation.batch import relax_all
from evaluation.relaxation.journal import read_journal
from evaluation.relaxation.relaxation import AseRelaxer, RelaxationSettings
from evaluation.stability.hull import ConvexHull
from evaluation.stability.stability import StabilitySettings, stability_table
from tests.evaluation.crystals import rocksalt
from tests.prototypes import prototype


def salt_and_lonely():
    salt = rocksalt(a=5.7).get_primitive_structure()
    lonely = Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]])
    return [Sample("salt", salt), Sample("lonely", lonely), Sample("strained", rocksalt(a=5.9))]


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    settings = StabilitySettings(relaxation=RelaxationSettings(max_steps=3))
    hull = ConvexHull(["NaCl"], [-2.1])
    references = ElementReferences.load()
    journal = tmp_path / "journal.jsonl"
    samples = salt_and_lonely()
    stability_table(samples[:2], hull, references, settings, journal)
    with journal.open("a") as stream:
        stream.write('{"id": "cut o')

    relaxed = []
    together = batch.relax_together

    def watched(crystals, *rest):
        return together((relaxed.append(c) or c for c in crystals), *rest)

    monkeypatch.setattr(batch, "relax_together", watched)
    table = stability_table(samples, hull, references, settings, journal)
    assert [structure.formula for _, structure in relaxed] == [samples[2].structure.formula]
    assert list(table.index) == ["salt", "lonely", "strained"]
    assert abs(table.loc["salt", "e_above_hull"]) < 0.1
    assert table.loc["salt", "matches_raw"]
    assert "without a neighbour" in table.loc["lonely", "error"]
    assert np.isnan(table.loc["lonely", "e_above_hull"])
    again = stability_table(samples, hull, references, settings, journal)
    assert len(relaxed) == 1
    pd.testing.assert_frame_equal(again, table)
    other = StabilitySettings(relaxation=RelaxationSettings(max_steps=2))
    stability_table(samples[:1], hull, references, other, journal)
    assert len(relaxed) == 2


def test_a_journal_cut_in_the_middle_of_a_line_is_mended(tmp_path):
    """The line cut off by a kill costs one crystal, not the one written after it as well."""
    settings = StabilitySettings(relaxation=RelaxationSettings(max_steps=1))
    journal = tmp_path / "journal.jsonl"
    journal.write_text('{"id": "cut o')
    list(relax_all(salt_and_lonely(), settings, journal))
    assert len(read_journal(journal)) == 3


@pytest.mark.parametrize("large", [200, 0])
def test_displacement_is_measured_in_angstroms_and_in_the_spacing_of_atoms(large, monkeypatch):
    """By the matcher, and atom by atom as in large cells."""
    monkeypatch.setattr(batch, "LARGE", large)
    raw = Structure(Lattice.cubic(4), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    moved = raw.copy()
    moved.translate_sites([1], [0, 0, 0.02])  # 0.08 Å: 0.04 Å for each about their mean
    normalised, rmsd = batch._rms_distance(raw, moved, MatchSettings())
    assert rmsd == pytest.approx(0.04, abs=1e-6)
    assert normalised == pytest.approx(0.04 / np.cbrt(32), abs=1e-6)
    grown = Structure(Lattice.cubic(4.4), raw.species, raw.frac_coords)
    assert batch._rms_distance(raw, grown, MatchSettings()) == pytest.approx((0, 0), abs=1e-6)
    other = Structure(Lattice.cubic(4), ["Cs", "I"], raw.frac_coords)
    assert batch._rms_distance(raw, other, MatchSettings()) == (None, None)
    sheared = Structure(Lattice.from_parameters(4, 4, 4, 90, 90, 101), raw.species, raw.frac_coords)
    assert batch._rms_distance(raw, sheared, MatchSettings(angle_tol=10 if large else 12)) == (
        (None, None) if large else pytest.approx((0, 0), abs=1e-6)
    )


def test_atom_by_atom_agrees_with_the_matcher(monkeypatch):
    """On strained and rattled crystals whose atoms keep their numbers."""
    generator = np.random.default_rng(0)
    for name in ("TiO2 rutile", "SiO2 quartz"):
        raw = prototype(name)
        strain = np.eye(3) + 0.03 * generator.normal(size=(3, 3))
        moved = Structure(raw.lattice.matrix @ strain, raw.species, raw.frac_coords)
        moved.perturb(0.15)
        matched = batch._rms_distance(raw, moved, MatchSettings())
        with monkeypatch.context() as patch:
            patch.setattr(batch, "LARGE", 0)
            assert batch._rms_distance(raw, moved, MatchSettings()) == pytest.approx(matched, rel=0.02)


def test_a_cell_of_a_thousand_atoms_is_compared():
    """In a moment; the matcher would not come back from it."""
    cell = prototype("NaCl").make_supercell((5, 5, 5), in_place=False)
    moved = cell.copy().perturb(0.1)
    normalised, rmsd = batch._rms_distance(cell, moved, MatchSettings())
    steps = cell.lattice.get_cartesian_coords((moved.frac_coords - cell.frac_coords + 0.5) % 1 - 0.5)
    assert len(cell) == 1000
    assert rmsd == pytest.approx(np.sqrt((steps**2).sum(1).mean()), rel=0.02)
    assert normalised == pytest.approx(rmsd / np.cbrt(cell.volume / 1000))


def lennard_jones():
    return LennardJones(sigma=2.5, epsilon=0.5, rc=7.0, smooth=True)


def test_any_ase_calculator_can_relax():
    copper = Structure(
        Lattice.cubic(4.2), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    broken = Structure(Lattice.cubic(4), ["Cu", "Cu"], [[0, 0, 0], [0, 0, 0]])
    settings = StabilitySettings(
        RelaxationSettings(fmax=0.02, keep_symmetry=True), relaxer=AseRelaxer("Lennard-Jones", lennard_jones)
    )
    assert "Lennard-Jones" in settings.protocol()
    first, second = relax_all([Sample("copper", copper), Sample("broken", broken)], settings)
    assert first["converged"]
    assert first["space_group_relaxed"] == 225
    assert first["energy_per_atom"] < 0
    assert second["error"]


def test_static_energies_of_any_calculator():
    copper = Structure(
        Lattice.cubic(4.2), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    wide = Structure(Lattice.cubic(40), ["Cu"], [[0, 0, 0]])
    energies = list(AseRelaxer("Lennard-Jones", lennard_jones).static_energies([copper, wide]))
    assert energies[0] < 0
    assert energies[1] == pytest.approx(0)


def test_two_processes_relax_what_one_does(tmp_path):
    settings = StabilitySettings(relaxation=RelaxationSettings(max_steps=2))
    alone = {r["id"]: r for r in relax_all(salt_and_lonely(), settings)}
    shared = {r["id"]: r for r in relax_all(salt_and_lonely(), replace(settings, workers=2), tmp_path / "j")}
    assert shared.keys() == alone.keys()
    for name, record in alone.items():
        assert shared[name]["error"] == record["error"]
        assert shared[name]["energy_per_atom"] == pytest.approx(record["energy_per_atom"], abs=1e-5)
