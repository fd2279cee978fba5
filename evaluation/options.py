"""From the options of a command line to the conventions of a report."""

from evaluation.metric import BootstrapSettings
from evaluation.metrics.coverage import CoverageSettings
from evaluation.relaxation.relaxation import RelaxationSettings
from evaluation.report.suite import EvaluationSettings
from evaluation.stability.hull_choice import HullChoice
from evaluation.stability.protocols import HEADLINE, named_protocol
from evaluation.stability.stability import StabilitySettings

_STILL = RelaxationSettings()


def settings_from_options(
    seed: int = 0,
    coverage: bool = False,
    stability: bool = False,
    hull: str = "mp_20",
    keep_symmetry: bool = False,
    protocol: str = HEADLINE,
    fmax: float = _STILL.fmax,
    steps: int = _STILL.max_steps,
) -> EvaluationSettings:
    """The settings that `evaluate` and `benchmark` run with.

    Args:
        seed: of the bootstrap and of the draw behind coverage.
        coverage: with COV-R, COV-P and fingerprint distances.
        stability: with relaxations and energies above the hull.
        hull: `mp_20`, `consistent` or a table, see `HullChoice`.
        keep_symmetry: relax within the space group.
        protocol: of `PROTOCOLS`; its matcher decides uniqueness and novelty.
        fmax: force at which a relaxation has converged, eV/Å.
        steps: most steps of a relaxation.

    Raises:
        ValueError: when there is no such protocol, a number is not positive, or an option of relaxation
            is given without stability.
        FileNotFoundError: when the hull's table does not exist.
    """
    chosen = named_protocol(protocol)
    if not (fmax > 0 and steps > 0):
        raise ValueError(f"expected a positive force and number of steps: got fmax {fmax}, steps {steps}")
    relaxation = RelaxationSettings(fmax, steps, keep_symmetry)
    if not stability and (hull != "mp_20" or relaxation != _STILL):
        raise ValueError("hull, keep-symmetry, fmax and steps say how to relax: add --stability")
    assert chosen.matcher is not None  # every named protocol has one
    return EvaluationSettings(
        match=chosen.matcher,
        bootstrap=BootstrapSettings(seed=seed),
        coverage=CoverageSettings(seed=seed) if coverage else None,
        stability=StabilitySettings(relaxation, hull=HullChoice.of(hull)) if stability else None,
        protocol=protocol,
    )
