"""Judges crystals from any generator.

    from evaluation import evaluate, read_structures
    report = evaluate(read_structures("samples.zip"), reference="mp_20")
    report.save("report")

Of the other rooms it imports `autoperi.crystals` and `autoperi.data` alone: no learned number, no scoring.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoperi.data.reading import read_structures
    from evaluation.facts.reference import Reference
    from evaluation.metrics.coverage import CoverageSettings
    from evaluation.report.classes import evaluate_class
    from evaluation.report.report import Report
    from evaluation.report.suite import evaluate
    from evaluation.settings import EvaluationSettings

_HOME = {
    "CoverageSettings": "evaluation.metrics.coverage",
    "EvaluationSettings": "evaluation.settings",
    "Reference": "evaluation.facts.reference",
    "Report": "evaluation.report.report",
    "evaluate": "evaluation.report.suite",
    "evaluate_class": "evaluation.report.classes",
    "read_structures": "autoperi.data.reading",
}

__all__ = [
    "CoverageSettings",
    "EvaluationSettings",
    "Reference",
    "Report",
    "evaluate",
    "evaluate_class",
    "read_structures",
]


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that the options alone cost nothing."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'evaluation' has no attribute {name!r}")
