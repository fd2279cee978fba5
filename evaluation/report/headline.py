"""Headline figures in order, and the group that every figure belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from evaluation.metric import Metric
from evaluation.options import HEADLINE
from evaluation.relaxation.sevennet import SEVENNET
from evaluation.stability.protocols import PROTOCOLS, named_protocol
from evaluation.stability.stability import suffix

Group = Literal["validity", "novelty", "distribution", "symmetry", "stability"]


@dataclass(frozen=True)
class Column:
    """A headline metric.

    Attributes:
        metric: its name.
        heading: as shown.
        group: what it says something about.
        percent: whether shares are shown in per cent.
        better: which values are; None where no direction is better in itself.
    """

    metric: str
    heading: str
    group: Group
    percent: bool = True
    better: Literal["high", "low"] | None = "high"


_GEOMETRY = (
    Column("structural_validity", "structural validity", "validity"),
    Column("strict_validity", "strict validity", "validity"),
    Column("smact_smact14", "SMACT (smact14)", "validity"),
    Column("uniqueness", "unique", "novelty"),
    Column("novelty", "novel", "novelty"),
    Column("novelty_substitution", "novel by substitution", "novelty", better=None),
    Column("novelty_known_gene", "novel on a known gene", "novelty", better=None),
    Column("novelty_new_gene", "novel on a new gene", "novelty", better=None),
    Column("valid_unique_novel", "valid, unique, novel", "novelty"),
    Column("cov_recall", "COV-R", "distribution"),
    Column("cov_precision", "COV-P", "distribution"),
    Column("wasserstein_density", "W density", "distribution", percent=False, better="low"),
    Column("wasserstein_n_elements", "W elements", "distribution", percent=False, better="low"),
    Column("element_jensen_shannon", "JSD elements", "distribution", percent=False, better="low"),
    Column("space_group_jensen_shannon", "JSD space groups", "symmetry", percent=False, better="low"),
    Column("p1_share_loose", "P1", "symmetry", better=None),
    Column("new_gene_share", "new genes", "symmetry", better=None),
)
_RELAXATION = (
    Column("median_e_above_hull", "median e_hull", "stability", percent=False, better="low"),
    Column("relaxed_matches_raw", "relaxed = raw", "stability"),
)
_AGREEMENT = (
    Column("potentials_agree", "same verdict", "stability"),
    Column("potentials_rank_correlation", "rank correlation", "stability", percent=False),
)
GROUPS: Mapping[Group, tuple[str, ...]] = {
    "validity": ("structural_", "strict_", "density_sane", "cif_", "charge_", "smact_", "valid"),
    "novelty": ("uniqueness", "novelty", "valid_unique_novel", "new_", "unique_structures"),
    "distribution": ("",),
    "symmetry": ("p1_", "space_group_", "distinct_", "gene_", "prototype_", "new_gene_share"),
    "stability": (
        "stable_",
        "sun_",
        "ssun_",
        "msun_",
        "median_e_",
        "relax",
        "wasserstein_formation_energy",
        "potentials_",
    ),
}
"""Beginnings of names, in the order of a report; the longest that fits decides."""


def headline_columns(protocol: str = HEADLINE) -> tuple[Column, ...]:
    """Columns in order; of stability the headline protocol in full, of the others the S.U.N. alone.

    Figures of a second potential stand behind those of the first.

    Raises:
        ValueError: when there is no such protocol.
    """
    first = named_protocol(protocol)
    shares = {"stable": "stable", "sun": "S.U.N.", "ssun": "S.S.U.N.", "msun": "M.S.U.N."}
    full = [
        Column(f"{key}_{first.name}", f"{name} {first.bound}", "stability") for key, name in shares.items()
    ]
    others = [p for p in PROTOCOLS.values() if p.name != first.name]
    rest = [Column(f"sun_{p.name}", f"S.U.N. {p.bound}", "stability") for p in others]
    own = (*full[:3], rest[-1], _RELAXATION[0], *_AGREEMENT)
    end = suffix(SEVENNET)
    second = [
        replace(column, metric=column.metric + end, heading=f"{column.heading}, SevenNet") for column in own
    ]
    return (*_GEOMETRY, *full, *rest, *_RELAXATION, *second)


def grouped(metrics: Iterable[Metric]) -> dict[Group, list[Metric]]:
    """Figures by what they say something about, in the order of a report."""
    found: dict[Group, list[Metric]] = {group: [] for group in GROUPS}
    for metric in metrics:
        found[max(GROUPS, key=lambda group: _fit(group, metric.name))].append(metric)
    return {group: own for group, own in found.items() if own}


def _fit(group: Group, name: str) -> int:
    return max((len(beginning) for beginning in GROUPS[group] if name.startswith(beginning)), default=-1)
