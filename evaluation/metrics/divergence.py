"""Fréchet distance and squared maximum mean discrepancy between two clouds of vectors."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist, pdist


def frechet_distance(samples: np.ndarray, reference: np.ndarray) -> float:
    """Fréchet distance between the normal distributions fitted to two sets of vectors.

    √(|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½)) (Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X;
    its square is the FID of arXiv:1706.08500). In the unit of the vectors. Few samples in many
    dimensions give covariances of low rank and a distance biased upwards: compare equal numbers
    only. NaN when either set has fewer than two vectors.
    """
    if len(samples) < 2 or len(reference) < 2:
        return float("nan")
    first, second = np.cov(samples, rowvar=False), np.cov(reference, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    shift = samples.mean(axis=0) - reference.mean(axis=0)
    root = _square_root(second)
    # tr (Σ₁Σ₂)^½ by the symmetric matrix with the same eigenvalues: never complex.
    cross = np.sqrt(np.linalg.eigvalsh(root @ first @ root).clip(min=0)).sum()
    square = shift @ shift + np.trace(first) + np.trace(second) - 2 * cross
    return float(np.sqrt(max(square, 0.0)))


def median_distance(vectors: np.ndarray) -> float:
    """Median Euclidean distance between different vectors: the usual bandwidth of a kernel."""
    return float(np.median(pdist(vectors))) if len(vectors) > 1 else float("nan")


def squared_mmd(
    samples: np.ndarray, reference: np.ndarray, bandwidth: float | None = None
) -> Callable[[np.ndarray], float]:
    """The unbiased squared maximum mean discrepancy as a function of which samples are taken.

    MMD² = mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over pairs of different vectors, with
    k(x, y) = exp(-|x - y|² / (2 σ²)) (Gretton et al. 2012, JMLR 13, eq. 3). σ is the median
    distance in the reference. Around 0, so also below, for equal distributions.

    Returns:
        a function of positions in `samples`; all of them once give the estimate. In a resample a
        vector is never paired with a copy of itself, which keeps the estimate unbiased. NaN with
        fewer than two different samples.
    """
    sigma = median_distance(reference) if bandwidth is None else bandwidth
    scale = -0.5 / sigma**2 if sigma > 0 else float("-inf")

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.exp(scale * cdist(x, y, "sqeuclidean")), nan=1.0)

    own, across = kernel(samples, samples), kernel(samples, reference).mean(axis=1)
    np.fill_diagonal(own, 0.0)
    m = len(reference)
    fixed = (kernel(reference, reference).sum() - m) / (m * (m - 1)) if m > 1 else float("nan")

    def estimate(taken: np.ndarray) -> float:
        weight = np.bincount(taken, minlength=len(samples)).astype(float)
        total = weight.sum()
        pairs = total**2 - (weight**2).sum()
        if pairs == 0:
            return float("nan")
        return float(weight @ own @ weight / pairs + fixed - 2 * weight @ across / total)

    return estimate


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
