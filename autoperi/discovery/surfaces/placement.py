"""Where a rigid molecule lies on a surface: a place on the cell's torus, a height, and a rotation.

Random places and orientations are lowered until the molecule touches, then led down the potential's energy by
FIRE along the six numbers of a rigid body, all in batches. The baseline are the symmetric sites of pymatgen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii
from pymatgen.analysis.adsorption import AdsorbateSiteFinder
from pymatgen.core import Structure
from pymatgen.core.surface import Slab
from scipy.spatial.transform import Rotation

from autoperi.discovery.surfaces.adsorbates import Adsorbate
from evaluation.relaxation.fire import CellDescent
from evaluation.relaxation.operations import Operations
from evaluation.relaxation.potential import BatchRelaxer, Graph, Potential
from evaluation.relaxation.quotient_graph import SKIN

_TOUCH = 1.2
"""Sums of covalent radii at which a molecule that is lowered touches."""
_FMAX = 0.05
"""Force, and torque over the molecule's radius, at which a descent ends, eV/Å."""
_NEAREST = 5
"""Atoms of the slab whose distances tell where an atom of the molecule is."""
_ALIKE = 0.3  # Å


@dataclass(frozen=True)
class Placement:
    """A rigid molecule on a slab.

    Attributes:
        centre: of mass, Å. [3]
        rotation: of the molecule as it is in the gas.
        energy: of slab and molecule, eV; NaN where it was not computed.
    """

    centre: np.ndarray
    rotation: Rotation
    energy: float = float("nan")

    def positions(self, adsorbate: Adsorbate) -> np.ndarray:
        """Of its atoms, Å, [atoms, 3]."""
        return self.rotation.apply(adsorbate.positions) + self.centre


def random_placements(slab: Structure, adsorbate: Adsorbate, n: int, seed: int) -> list[Placement]:
    """Uniform over the cell and over orientations, lowered until they touch the upper side."""
    rng = np.random.default_rng(seed)
    frac, turns = rng.random((n, 2)), Rotation.random(n, rng=rng)
    return [_lowered(slab, adsorbate, xy, turn) for xy, turn in zip(frac, turns, strict=True)]


def by_sites(slab: Structure, adsorbate: Adsorbate, n: int, seed: int) -> list[Placement]:
    """The baseline: on-top, bridge and hollow sites of `AdsorbateSiteFinder` in turn, each time turned
    about the normal by another random angle, lowered until they touch; upright as in ASE's g2 set.
    """  # noqa: D205
    normal = np.cross(*slab.lattice.matrix[:2]).tolist()
    oriented = Slab(slab.lattice, slab.species, slab.frac_coords, (0, 0, 1), slab, 0, np.eye(3))
    sites = AdsorbateSiteFinder(oriented, mi_vec=normal).find_adsorption_sites()["all"]
    angles = np.random.default_rng(seed).random(n) * 2 * np.pi
    found = []
    for k, angle in enumerate(angles):
        xy = slab.lattice.get_fractional_coords(sites[k % len(sites)])[:2]
        found.append(_lowered(slab, adsorbate, xy, Rotation.from_rotvec([0, 0, angle])))
    return found


def rigidly_descended(
    slab: Structure,
    adsorbate: Adsorbate,
    starts: Sequence[Placement],
    relaxer: BatchRelaxer,
    max_steps: int = 60,
) -> list[Placement]:
    """Placements led down the energy of a rigid molecule on a rigid slab, lowest first.

    Gradients of the centre are sums of those of the atoms, those of the rotation their torques over the
    radius of the molecule; a step of rotation is the exponential of its vector. What the potential cannot
    represent on the way is left where it last was, with the energy it had there.
    """
    potential, descent = relaxer.load("cpu"), CellDescent()
    bodies = [_Body(slab, adsorbate, start, potential) for start in starts]
    for body in bodies:
        descent.enter(np.eye(3), np.stack([body.centre, np.zeros(3)]))
    active, radius, done = list(bodies), adsorbate.radius, np.array([])
    while active:
        rows, _ = descent.geometry()
        for body, (centre, turned) in zip(active, rows, strict=True):
            body.move(centre, turned / radius)
        batch = max(1, potential.batch_sites // len(bodies[0].numbers))
        for k in range(0, len(active), batch):
            part = active[k : k + batch]
            cells = [slab.lattice.matrix] * len(part)
            found = potential([b.graph for b in part], [b.cart for b in part], cells)
            gradients = found.gradients.reshape(len(part), -1, 3)[:, len(slab) :]
            for body, energy, gradient in zip(part, found.energies, gradients, strict=True):
                body.energy = float(energy)
                torque = np.cross(body.cart[len(slab) :] - body.centre, gradient).sum(axis=0)
                body.slope = np.stack([gradient.sum(axis=0), torque / radius])
        slopes = np.concatenate([body.slope for body in active])
        forces, largest = descent.forces(slopes, np.zeros((len(active), 3, 3)))
        done = (largest < _FMAX) | (descent.steps >= max_steps)
        forces = forces[~np.repeat(done, 5)]
        active = [body for body, over in zip(active, done, strict=True) if not over]
        descent.keep(~done)
        if active:
            descent.step(forces)
    return sorted((body.placement() for body in bodies), key=lambda placement: placement.energy)


def basins_first(slab: Structure, adsorbate: Adsorbate, placements: Sequence[Placement]) -> list[Placement]:
    """The lowest placement of each basin, lowest first, and then what lies in the same basins.

    Two lie in one basin where the distances of the molecule's atoms from the nearest of the slab are the
    same to 0.3 Å, whichever of the equivalent places of the surface, or of alike atoms, that is.
    """
    seen: list[np.ndarray] = []
    first, again = [], []
    for placement in sorted(placements, key=lambda placement: placement.energy):
        around = _surroundings(slab, adsorbate, placement)
        new = all(np.abs(around - other).max() > _ALIKE for other in seen)
        (first if new else again).append(placement)
        seen += [around] * new
    return first + again


def _surroundings(slab: Structure, adsorbate: Adsorbate, placement: Placement) -> np.ndarray:
    """Distances from the nearest slab atoms, sorted; alike atoms of the molecule in the order of theirs."""
    frac = slab.lattice.get_fractional_coords(placement.positions(adsorbate))
    near = np.sort(slab.lattice.get_all_distances(frac, slab.frac_coords), axis=1)[:, :_NEAREST]
    return near[np.lexsort((*near.T[::-1].round(1), adsorbate.numbers))]


class _Body:
    """A rigid molecule on its way: where it is, and the graph of slab and molecule as long as it serves."""

    def __init__(self, slab: Structure, adsorbate: Adsorbate, start: Placement, potential: Potential) -> None:
        self._adsorbate, self._potential, self._cell = adsorbate, potential, slab.lattice.matrix
        self.numbers = np.concatenate([np.array(slab.atomic_numbers), adsorbate.numbers])
        self.centre, self._rotation, self._turned = start.centre, start.rotation, np.zeros(3)
        self.cart = np.concatenate([slab.cart_coords, start.positions(adsorbate)])
        self.energy, self.slope = float("nan"), np.zeros((2, 3))
        self._build()

    def move(self, centre: np.ndarray, turned: np.ndarray) -> None:
        """To a centre, Å, and on by the rotation vectors added since the last time."""
        self._rotation = Rotation.from_rotvec(turned - self._turned) * self._rotation
        self.centre, self._turned = centre, turned
        own = len(self._adsorbate.numbers)
        self.cart = np.concatenate([self.cart[:-own], self.placement().positions(self._adsorbate)])
        if 2 * np.linalg.norm(self.cart - self._built, axis=1).max() > SKIN:
            self._build()

    def placement(self) -> Placement:
        """As it is now."""
        return Placement(self.centre, self._rotation, self.energy)

    def _build(self) -> None:
        identity = Operations.identity(len(self.numbers))
        self.graph: Graph = self._potential.graph(self._cell, self.cart, self.numbers, identity)
        self._built = self.cart


def _lowered(slab: Structure, adsorbate: Adsorbate, xy: np.ndarray, rotation: Rotation) -> Placement:
    """Above a place (fractional), as low as radii allow."""
    lattice, atoms = slab.lattice, rotation.apply(adsorbate.positions)
    normal = np.cross(*lattice.matrix[:2])
    normal /= np.linalg.norm(normal)
    upward = lattice.matrix[2] / (lattice.matrix[2] @ normal)
    reach = _TOUCH * np.add.outer(
        covalent_radii[adsorbate.numbers], covalent_radii[np.array(slab.atomic_numbers)]
    )
    floor = xy @ lattice.matrix[:2]
    top = (slab.cart_coords @ normal).max() + reach.max() + adsorbate.radius * 3
    for height in np.arange(top, top - 12.0, -0.1):
        cart = atoms + floor + height * upward
        apart = lattice.get_all_distances(lattice.get_fractional_coords(cart), slab.frac_coords)
        if (apart < reach).any():
            height += 0.1
            break
    return Placement(floor + height * upward, rotation)
