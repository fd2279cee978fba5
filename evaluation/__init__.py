"""Judges crystals from any generator.

    from evaluation import evaluate, read_structures
    report = evaluate(read_structures("samples.zip"), reference="mp_20")
    report.save("report")

This room imports neither the generator nor the property models.
"""

from autoperi.data.reading import read_structures
from evaluation.facts.reference import Reference
from evaluation.metrics.coverage import CoverageSettings
from evaluation.report.report import Report
from evaluation.report.suite import EvaluationSettings, evaluate

__all__ = ["CoverageSettings", "EvaluationSettings", "Reference", "Report", "evaluate", "read_structures"]
