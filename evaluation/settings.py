"""Every convention of a report, and what a command's options mean by them."""

from dataclasses import dataclass, field

from autoperi.data.cache import required
from evaluation.facts.matching import MatchSettings
from evaluation.facts.symmetry import SymmetrySettings
from evaluation.metric import BootstrapSettings
from evaluation.metrics.coverage import CoverageSettings
from evaluation.metrics.validity import RuleSet
from evaluation.options import HEADLINE, Options, PotentialName
from evaluation.relaxation.chgnet import CHGNET
from evaluation.relaxation.potential import BatchRelaxer
from evaluation.relaxation.settings import RelaxationSettings
from evaluation.relaxation.sevennet import SEVENNET
from evaluation.stability.hull_choice import HullChoice
from evaluation.stability.protocols import named_protocol
from evaluation.stability.stability import StabilitySettings


@dataclass(frozen=True)
class EvaluationSettings:
    """Every convention of a report.

    Attributes:
        smact_rules: rule sets reported; the first decides what "valid" means further on.
        missing_electronegativity_passes: see `smact_valid`.
        match: matcher of uniqueness and novelty.
        symmetry: tolerances of the space groups.
        bootstrap: of the intervals.
        max_distance_samples: Wasserstein distances use the first so many valid crystals, as CDVAE
            does; None uses all.
        coverage: COV, Fréchet and MMD distances on site fingerprints; None leaves this slow step out.
        stability: relax and report energies above the hull; None leaves this slow step out.
        protocol: the S.U.N. protocol that tables show in full; S.U.N. is given under every protocol whose
            matcher is `match`.
    """

    smact_rules: tuple[RuleSet, ...] = ("smact14", "default", "icsd24")
    missing_electronegativity_passes: bool = True
    match: MatchSettings = field(default_factory=MatchSettings)
    symmetry: SymmetrySettings = field(default_factory=SymmetrySettings)
    bootstrap: BootstrapSettings = field(default_factory=BootstrapSettings)
    max_distance_samples: int | None = 1000
    coverage: CoverageSettings | None = None
    stability: StabilitySettings | None = None
    protocol: str = HEADLINE

    @classmethod
    def of(cls, options: Options) -> "EvaluationSettings":
        """The settings that a command's options stand for.

        Raises:
            ValueError: when there is no such protocol, a number is not positive, or an option of relaxation
                is given without stability.
            FileNotFoundError: when the hull's table does not exist.
            ImportError: coverage without matminer, which the extra ``coverage`` installs, or sevennet without
                sevenn, which the extra ``judge`` installs.
        """
        chosen = named_protocol(options.protocol)
        if not (options.fmax > 0 and options.steps > 0):
            raise ValueError(
                f"expected a positive force and number of steps: got fmax {options.fmax}, "
                f"steps {options.steps}"
            )
        relaxation = RelaxationSettings(options.fmax, options.steps, options.keep_symmetry)
        unasked = Options(
            hull=options.hull, potential=options.potential, fmax=options.fmax, steps=options.steps
        )
        if not options.stability and (unasked != Options() or options.keep_symmetry):
            raise ValueError(
                "potential, hull, keep-symmetry, fmax and steps say how to relax: add --stability"
            )
        if not options.potential or len(set(options.potential)) < len(options.potential):
            named = " ".join(options.potential) or "none"
            raise ValueError(f"expected potentials, each once: got {named}")
        first, *others = map(potential, options.potential) if options.stability else [CHGNET]
        assert chosen.matcher is not None  # every named protocol has one
        stability = StabilitySettings(
            relaxation, relaxer=first, hull=HullChoice.of(options.hull), others=tuple(others)
        )
        return cls(
            match=chosen.matcher,
            bootstrap=BootstrapSettings(seed=options.seed),
            coverage=CoverageSettings(seed=options.seed) if options.coverage else None,
            stability=stability if options.stability else None,
            protocol=options.protocol,
        )

    def __post_init__(self) -> None:
        """Refuse hours of work after which a figure that was asked for could not be printed."""
        if self.coverage is not None:
            required("matminer", "coverage")
        wanted = named_protocol(self.protocol).matcher
        if self.stability is not None and self.match != wanted:
            raise ValueError(f"protocol {self.protocol!r} matches by {wanted}: got {self.match}")


def potential(name: PotentialName) -> BatchRelaxer:
    """A potential by the name that commands know it by.

    Raises:
        ImportError: sevennet without the package sevenn, which the extra ``judge`` installs.
    """
    if name == "sevennet":
        required(SEVENNET.package, "judge")
    return {"chgnet": CHGNET, "sevennet": SEVENNET}[name]
