import contextlib
import io
import warnings
from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from evaluation.facts.symmetry import space_group
from evaluation.relaxation import relaxation
from evaluation.relaxation.chgnet import CHGNET, CHGNetPotential, chgnet
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.relaxation import (
    AseRelaxer,
    RelaxationSettings,
    relax,
    relax_together,
    relax_with_calculator,
)
from tests.evaluation.crystals import perovskite, rocksalt, rutile, wurtzite


def relaxed_by_chgnet(crystal, settings):
    from chgnet.model.dynamics import StructOptimizer

    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = StructOptimizer(use_device="cpu")
        result = optimizer.relax(crystal, fmax=settings.fmax, steps=settings.max_steps, verbose=False)
    # Its observer also sees the start, and the end twice.
    return result["trajectory"].energies[-1] / len(crystal), len(result["trajectory"]) - 2, result


@pytest.fixture(scope="module")
def distorted():
    skewed = wurtzite().perturb(0.15)
    skewed.apply_strain([0.06, -0.04, 0.03])
    return [skewed, rutile().perturb(0.1), rocksalt(a=6.0).get_primitive_structure()]


def test_each_crystal_of_a_batch_goes_the_way_chgnet_takes_it_alone(distorted):
    """Steps, energy and geometry after FIRE on FrechetCellFilter, by ASE and by the batch."""
    settings = RelaxationSettings(max_steps=30)
    outcomes = dict(relax_together(enumerate(distorted), settings, batch_sites=9))
    for k, crystal in enumerate(distorted):
        energy, steps, result = relaxed_by_chgnet(crystal.copy(), settings)
        assert outcomes[k].steps == steps
        assert outcomes[k].energy_per_atom == pytest.approx(energy, abs=2e-5)
        final = result["final_structure"]
        assert outcomes[k].structure.lattice.matrix == pytest.approx(final.lattice.matrix, abs=2e-3)
        assert outcomes[k].structure.distance_matrix == pytest.approx(final.distance_matrix, abs=2e-3)
        assert outcomes[k].converged == (steps < settings.max_steps)


def test_relaxation_restores_the_lattice_constant():
    result = relax(rocksalt(a=6.0).get_primitive_structure(), RelaxationSettings(max_steps=60))
    assert result.converged
    assert result.structure.volume == pytest.approx(5.69**3 / 4, rel=0.05)


def test_symmetry_is_kept_exactly():
    """A cubic perovskite with a slip within symprec: without the projection it would tilt or stay off."""
    crystal = perovskite("Sr", "Ti", 4.1)
    crystal.translate_sites([2], [0, 0, 0.001])
    tetragonal = rutile()
    tetragonal.apply_strain([0.05, 0.05, -0.03])
    settings = RelaxationSettings(fmax=0.02, keep_symmetry=True)
    outcomes = dict(relax_together({"cubic": crystal, "rutile": tetragonal}.items(), settings))
    assert space_group(outcomes["cubic"].structure, 1e-6) == 221
    assert space_group(outcomes["rutile"].structure, 1e-6) == 136
    free = relax(tetragonal, RelaxationSettings(fmax=0.02))
    assert outcomes["rutile"].energy_per_atom == pytest.approx(free.energy_per_atom, abs=1e-4)
    assert outcomes["rutile"].steps == pytest.approx(free.steps, abs=1)


def test_a_symmetric_saddle_is_not_left():
    """Tetragonal ZrO2 strained to the cubic fluorite: only the projection keeps it there."""
    faces = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    oxygen = [[x, y, z] for x in (0.25, 0.75) for y in (0.25, 0.75) for z in (0.25, 0.75)]
    fluorite = Structure(Lattice.cubic(5.12), ["Zr"] * 4 + ["O"] * 8, faces + oxygen)
    slipped = fluorite.copy()
    for k, (x, y, _) in enumerate(oxygen):
        slipped.translate_sites([4 + k], [0, 0, 0.0015 * (1 if x == y else -1)])
    kept = relax(slipped, RelaxationSettings(fmax=0.01, keep_symmetry=True, symprec=0.02))
    assert space_group(kept.structure, 1e-6) == 225


@pytest.mark.parametrize("keep_symmetry", [False, True])
def test_the_company_does_not_matter(distorted, keep_symmetry):
    """To the last bit, so that a run that was interrupted ends as one that was not."""
    settings = RelaxationSettings(max_steps=12, keep_symmetry=keep_symmetry)
    crystals = [*distorted, perovskite(), Structure(Lattice.cubic(4.5), ["Xe"], [[0, 0, 0]])]
    alone = [relax(crystal, settings) for crystal in crystals]
    for order in ((0, 1, 2, 3, 4), (4, 2, 3, 1, 0)):
        together = dict(relax_together([(k, crystals[k]) for k in order], settings, batch_sites=20))
        for k, one in enumerate(alone):
            assert together[k].steps == one.steps
            assert together[k].energy_per_atom == one.energy_per_atom
            assert together[k].structure == one.structure
            assert (together[k].structure.cart_coords == one.structure.cart_coords).all()


def test_failures_are_named_and_cost_one_crystal():
    salt = rocksalt(a=5.7).get_primitive_structure()
    crystals = {
        "lonely": Structure(Lattice.cubic(40), ["Na"], [[0, 0, 0]]),
        "salt": salt,
        "curium": Structure(Lattice.cubic(4), ["Cm"], [[0, 0, 0]]),
        "dense": Structure(Lattice.cubic(0.3), ["H"], [[0, 0, 0]]),
        "wide": Structure(Lattice.cubic(0.5), ["Na"], [[0, 0, 0]]),
        "flat": Structure(np.zeros((3, 3)), ["H"], [[0, 0, 0]]),
    }
    outcomes = dict(relax_together(crystals.items(), RelaxationSettings(max_steps=1)))
    assert outcomes.keys() == crystals.keys()
    assert outcomes["salt"].steps <= 1
    for name, words in {
        "lonely": "neighbour",
        "curium": "96",
        "dense": "too dense",
        "wide": "angles within 3 Å, at most 1000000: too dense",
        "flat": "volume",
    }.items():
        assert words in outcomes[name]
    with pytest.raises(ValueError, match="neighbour"):
        relax(crystals["lonely"])


def around(call):
    """CHGNet, its energies and derivatives by another function."""

    class Around(CHGNetPotential):
        def __init__(self):
            """Load nothing."""

        def __call__(self, *arguments, **named):
            return call(*arguments, **named)

    return BatchRelaxer("Around", "chgnet", lambda _: Around(), CHGNET.references)


@pytest.mark.parametrize("company", [True, False])
def test_when_memory_runs_out_the_widest_crystal_fails_alone(company, distorted):
    most = max(len(chgnet().as_it_stands(c)[0].angle_count) for c in distorted)

    def small(graphs, *arguments):
        if sum(len(graph.angle_count) for graph in graphs) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return chgnet()(graphs, *arguments)

    crystals = {"wide": rocksalt("Mg", "O", 2.6)} | ({"other": distorted[0]} if company else {})
    outcomes = dict(relax_together(crystals.items(), RelaxationSettings(max_steps=1), relaxer=around(small)))
    assert outcomes.keys() == crystals.keys()
    assert outcomes["wide"].startswith("out of memory at")
    assert not company or outcomes["other"].steps <= 1


def test_a_batch_takes_no_more_once_its_angles_fill_it(distorted, monkeypatch):
    sizes = []

    def counted(graphs, *rest):
        sizes.append(len(graphs))
        return chgnet()(graphs, *rest)

    monkeypatch.setattr(relaxation, "_FULL", 1e-9)
    settings = RelaxationSettings(max_steps=1)
    outcomes = dict(relax_together(enumerate(distorted), settings, relaxer=around(counted)))
    assert set(sizes) == {1}
    assert len(outcomes) == len(distorted)


def test_another_error_of_the_potential_is_not_hidden(distorted):
    def broken(*_):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        relax(distorted[0], relaxer=around(broken))


def test_time_runs_out_for_a_crystal_that_takes_too_long(distorted):
    settings = RelaxationSettings(fmax=1e-9, max_seconds=0.02)
    ((_, outcome),) = relax_together([("slow", distorted[1])], settings)
    assert outcome.startswith("time-out: 0.02 s used up after")


def test_start_and_end_are_told(distorted):
    """The energy it began with is that of the crystal as it stood, and the force left decides convergence."""
    settings = RelaxationSettings(max_steps=200)
    outcomes = dict(relax_together(enumerate(distorted), settings))
    for k, energy in enumerate(CHGNET.static_energies(distorted)):
        assert outcomes[k].start_energy_per_atom == pytest.approx(energy, abs=1e-5)
        assert outcomes[k].energy_per_atom < energy
        assert outcomes[k].converged == (outcomes[k].largest_force < settings.fmax)


def test_a_calculator_keeps_its_trajectory_too():
    from ase.calculators.emt import EMT

    stretched = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.75), ["Cu"], [[0, 0, 0]])
    plain = RelaxationSettings(fmax=0.01)
    found = relax_with_calculator(stretched, EMT(), replace(plain, trajectory=True))
    assert len(found.trajectory) == found.steps + 1
    assert found.trajectory[0].energy_per_atom == pytest.approx(found.start_energy_per_atom)
    assert found.trajectory[-1].energy_per_atom == pytest.approx(found.energy_per_atom)
    assert found.trajectory[-1].largest_force < 0.01 < found.trajectory[0].largest_force
    assert relax_with_calculator(stretched, EMT(), plain).trajectory == ()


def test_under_pressure_energy_rises_by_it_with_the_volume_that_is_lost():
    """-dE/dV is the pressure that a cell was relaxed under: of the batch, and of a calculator."""
    from ase.calculators.emt import EMT
    from ase.units import GPa

    salt = rocksalt(a=5.6).get_primitive_structure()
    copper = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.6), ["Cu"], [[0, 0, 0]])
    settings = RelaxationSettings(fmax=0.001, pressure=8.0)
    own = AseRelaxer("EMT", EMT)
    for relaxer, found in (
        (CHGNET, relax(salt, replace(settings, keep_symmetry=True))),
        (own, relax_with_calculator(copper, EMT(), settings)),
    ):
        around_it = [found.structure.copy().scale_lattice(f * found.structure.volume) for f in (0.99, 1.01)]
        low, high = relaxer.static_energies(around_it)
        slope = (high - low) * len(found.structure) / (0.02 * found.structure.volume)
        assert -slope / GPa == pytest.approx(8.0, rel=0.05)
    assert "on atoms and cell at 8 GPa" in str(settings)
    with pytest.raises(ValueError, match="none where the cell is kept: got 8"):
        replace(settings, keep_cell=True)


def test_held_atoms_and_a_kept_cell_stay_where_they_are():
    from ase.calculators.emt import EMT

    crystal = Structure(Lattice.cubic(3.6), ["Cu", "Au", "Cu", "Cu"], fcc_sites()).perturb(0.2, seed=0)
    held = crystal.copy(site_properties={"selective_dynamics": [[False] * 3, [True] * 3] * 2})
    settings = RelaxationSettings(max_steps=5, keep_cell=True)
    for found in (relax(held, settings), relax_with_calculator(held, EMT(), settings)):
        moved = np.linalg.norm(found.structure.cart_coords - crystal.cart_coords, axis=1)
        assert (moved[[0, 2]] < 1e-12).all()
        assert (moved[[1, 3]] > 0.01).all()
        assert (found.structure.lattice.matrix == crystal.lattice.matrix).all()
        assert found.energy_per_atom < found.start_energy_per_atom
    for wrong in (RelaxationSettings(), replace(settings, keep_symmetry=True)):
        with pytest.raises(ValueError, match="expected keep_cell and no keep_symmetry"):
            relax(held, wrong)


def fcc_sites():
    return [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
