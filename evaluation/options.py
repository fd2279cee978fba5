"""How crystals are judged, in the words of a command line; light to import, so that help is instant."""

from dataclasses import dataclass
from typing import Literal

from evaluation.relaxation.settings import RelaxationSettings

ProtocolName = Literal["cdvae", "wyformer", "mattergen", "strict"]
ClassName = Literal["zeolite", "perovskite", "carbon"]
PotentialName = Literal["chgnet", "sevennet"]
HEADLINE: ProtocolName = "wyformer"


@dataclass(frozen=True)
class Options:
    """How crystals are judged.

    Attributes:
        coverage: also COV-R, COV-P and fingerprint distances to the test split (extra `coverage`; slow).
        stability: also relax and measure energies above the hull.
        potential: that relaxes and judges; a second one goes on from where the first ended (sevennet is
            SevenNet-l3i5, extra `judge`).
        hull: mp_20 (DFT), consistent (by CHGNet too) or a CSV (composition, formation_energy_per_atom).
        keep_symmetry: relax within the space group.
        protocol: of S.U.N.; its matcher decides uniqueness and novelty.
        fmax: force at which a relaxation ends, eV/Å.
        steps: most steps of a relaxation.
        seed: of the bootstrap and of the draw behind coverage.
    """

    coverage: bool = False
    stability: bool = False
    potential: tuple[PotentialName, ...] = ("chgnet",)
    hull: str = "mp_20"
    keep_symmetry: bool = False
    protocol: ProtocolName = HEADLINE
    fmax: float = RelaxationSettings.fmax
    steps: int = RelaxationSettings.max_steps
    seed: int = 0
