"""From formulas to structures: what joins generator, relaxation and judgement."""

from autoperi.discovery.candidates import Candidate, CellRequest, Proposals
from autoperi.discovery.formulas import read_formulas
from autoperi.discovery.prediction import Prediction, predict
from autoperi.discovery.ranker import CandidateRanker

__all__ = [
    "Candidate",
    "CandidateRanker",
    "CellRequest",
    "Prediction",
    "Proposals",
    "predict",
    "read_formulas",
]
