"""S.U.N. figures under named protocols: no figure without its relaxer, hull, threshold and reference.

Shares of stable, unique and novel crystals cannot be compared unless all of these agree, so a
protocol holds them together and every figure carries them.
"""

import math
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from evaluation.facts.levels import LEVELS
from evaluation.facts.matching import MatchSettings
from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric

METASTABLE = 0.1
_FIELD = MatchSettings(ltol=0.2, stol=0.3, angle_tol=5.0)


@dataclass(frozen=True)
class SunProtocol:
    """When a crystal counts as stable, unique and novel.

    Attributes:
        name: short name.
        threshold: eV/atom above the hull.
        below: True when a stable crystal lies below the threshold, False when it may lie on it.
        relaxer: potential and settings that relaxed it.
        hull: phases of the hull.
        reference: crystals it is novel against.
        matcher: when two crystals are the same.
        source: whose convention it is.
    """

    name: str
    threshold: float
    below: bool = False
    relaxer: str = ""
    hull: str = ""
    reference: str = ""
    matcher: MatchSettings | None = _FIELD
    source: str = ""

    def measured(self, relaxer: str, hull: str, reference: str, matcher: MatchSettings) -> "SunProtocol":
        """The protocol with what was really used written into it.

        Raises:
            ValueError: when crystals were matched by another rule than the protocol's.
        """
        if matcher != self.matcher:
            raise ValueError(
                f"protocol {self.name!r} matches by {self.matcher}: got crystals matched by {matcher}"
            )
        return replace(self, relaxer=relaxer, hull=hull, reference=reference)

    def __str__(self) -> str:
        """As printed beside every figure.

        Raises:
            ValueError: when relaxer, hull, threshold, reference or matcher is missing.
        """
        stated = {
            "relaxer": self.relaxer.strip(),
            "hull": self.hull.strip(),
            "threshold": math.isfinite(self.threshold),
            "reference": self.reference.strip(),
            "matcher": self.matcher,
        }
        missing = [key for key, value in stated.items() if not value]
        if missing:
            raise ValueError(f"no S.U.N. without {', '.join(missing)}: state them with SunProtocol.measured")
        sign = "<" if self.below else "<="
        return (
            f"{self.name}: e_above_hull {sign} {self.threshold:g} eV/atom; relaxer {self.relaxer}; "
            f"hull {self.hull}; novel against {self.reference}; {self.matcher}"
        )

    @property
    def bound(self) -> str:
        """The threshold as a heading writes it, in eV/atom."""
        return f"{'<' if self.below else '≤'} {self.threshold:g}"

    def stable(self, e_above_hull: np.ndarray) -> np.ndarray:
        """Which energies above the hull are stable; NaN, a failed relaxation, is not."""
        energies = np.asarray(e_above_hull, dtype=float)
        return energies < self.threshold if self.below else energies <= self.threshold

    def metastable(self, e_above_hull: np.ndarray) -> np.ndarray:
        """Not stable, but at most 0.1 eV/atom above the hull (disjoint, as in LeMat-GenBench)."""
        energies = np.asarray(e_above_hull, dtype=float)
        return (energies <= METASTABLE) & ~self.stable(energies)


PROTOCOLS = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            SunProtocol(
                "cdvae",
                0.0,
                matcher=MatchSettings(ltol=0.3, stol=0.5, angle_tol=10.0),
                source="matcher of CDVAE (arXiv:2110.06197); its descendants count e_above_hull <= 0",
            ),
            SunProtocol("wyformer", 0.08, source="Wyckoff Transformer, arXiv:2503.02407"),
            SunProtocol("mattergen", 0.1, source="MatterGen, arXiv:2312.03687"),
            SunProtocol("strict", 0.0, below=True, source="below the hull, as FlowMM, arXiv:2406.04713"),
        )
    }
)


def named_protocol(name: str) -> SunProtocol:
    """A protocol of `PROTOCOLS`.

    Raises:
        ValueError: when there is none of that name; the message lists them.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no S.U.N. protocol {name!r}: known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def sun_metrics(
    table: pd.DataFrame,
    protocol: SunProtocol,
    unreadable: int = 0,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> list[Metric]:
    """Stable, S.U.N., S.S.U.N. and M.S.U.N. shares under one protocol.

    S.U.N. crystals are stable, like no earlier crystal and like none of the reference; S.S.U.N.
    (symmetric) leaves out those of space group P1; M.S.U.N. are metastable instead of stable, so that
    S.U.N. and M.S.U.N. add up. The denominator is every item, failed relaxations and unreadable items
    included.

    Args:
        table: one row per crystal with `e_above_hull` (eV/atom, NaN after a failure), `duplicate_of`,
            `reference_twin` (missing where there is none) and `space_group_loose` (missing is P1).
        protocol: complete, see `SunProtocol.measured`.
        unreadable: items that were no crystal.
        bootstrap: of the intervals.

    Raises:
        ValueError: when the protocol leaves out relaxer, hull, threshold, reference or matcher, or a
            column is missing.
    """
    label = str(protocol)
    needed = {"e_above_hull", "duplicate_of", "reference_twin", "space_group_loose"}
    if missing := sorted(needed - set(table.columns)):
        raise ValueError(f"no column {missing}: S.U.N. needs {sorted(needed)}")
    energies = table["e_above_hull"].to_numpy(dtype=float)
    new = (table["duplicate_of"].isna() & table["reference_twin"].isna()).to_numpy(dtype=bool)
    symmetric = (table["space_group_loose"].fillna(1) != 1).to_numpy(dtype=bool)
    stable = protocol.stable(energies)
    shares = {
        "stable": stable,
        "sun": stable & new,
        "ssun": stable & new & symmetric,
        "msun": protocol.metastable(energies) & new,
    }
    nothing = np.zeros(unreadable, dtype=bool)
    items = "all items, failed relaxations not stable"
    return [
        mean_metric(f"{name}_{protocol.name}", np.concatenate([mask, nothing]), items, label, bootstrap)
        for name, mask in shares.items()
    ]


def stable_by_level(
    table: pd.DataFrame, protocol: SunProtocol, bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP
) -> list[Metric]:
    """Stable share of the crystals of each level of novelty, under one protocol (`sun_metrics`)."""
    stable = protocol.stable(table["e_above_hull"].to_numpy(dtype=float))
    return [
        mean_metric(
            f"stable_{protocol.name}_{level}",
            stable[(table["novelty_level"] == level).to_numpy()],
            f"readable crystals of level {level}, failed relaxations not stable",
            str(protocol),
            bootstrap,
        )
        for level in LEVELS
    ]
