"""Is a latent space well used: alignment of views of one crystal, uniformity over all crystals."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.special import logsumexp

from evaluation.metric import DEFAULT_BOOTSTRAP, BootstrapSettings, Metric, mean_metric, statistic_metric

_MOST = 3000  # uniformity looks at all pairs


def alignment(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Squared distance of the two views of each crystal, [n].

    The mean is E |f(x) - f(x⁺)|², eq. 5 of Wang & Isola (arXiv:2005.10242) with α = 2.

    Args:
        first: embedding of one view of each crystal, [n, d].
        second: embedding of another view of the same crystal, [n, d].
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"expected two arrays [crystals, features] of one shape: got {first.shape} and {second.shape}"
        )
    return ((first - second) ** 2).sum(axis=1)


def uniformity(embeddings: np.ndarray, temperature: float = 2.0) -> float:
    """Logarithm of the mean Gaussian potential over pairs of different embeddings; at most 0.

    log E exp(-t |f(x) - f(y)|²), eq. 6 of Wang & Isola (arXiv:2005.10242). The lower, the more
    evenly spread. The logarithm of the mean is taken without underflow, so clouds far apart give a
    finite figure. NaN for fewer than two.
    """
    potentials = -temperature * pdist(np.asarray(embeddings, dtype=float), "sqeuclidean")
    if potentials.size == 0:
        return float("nan")
    return float(logsumexp(potentials) - np.log(potentials.size))


def latent_metrics(
    first: np.ndarray,
    second: np.ndarray,
    temperature: float = 2.0,
    on_sphere: bool = True,
    bootstrap: BootstrapSettings = DEFAULT_BOOTSTRAP,
) -> list[Metric]:
    """Alignment and uniformity of an encoder on pairs of views, with intervals over crystals.

    Args:
        first: embedding of one view of each crystal, [n, d].
        second: embedding of another view of the same crystal, [n, d].
        temperature: t of the uniformity.
        on_sphere: scale every embedding to length 1 first, as the paper does; without it the
            figures of two encoders of different scale cannot be compared.
        bootstrap: of the intervals.
    """
    if on_sphere:
        first, second = _unit(first), _unit(second)
    views = "unit vectors" if on_sphere else "vectors as given"
    squared = alignment(first, second)
    taken = np.asarray(first, dtype=float)[:_MOST]
    of = f"first views of at most {_MOST} crystals"
    protocol = f"log mean exp(-{temperature:g} |x - y|²) over pairs, {views} (arXiv:2005.10242)"
    if len(taken) < 2:
        spread = Metric("uniformity", float("nan"), None, None, len(taken), of, protocol)
    else:
        spread = statistic_metric(
            "uniformity", np.arange(len(taken)), _resampled(taken, temperature), of, protocol, bootstrap
        )
    return [
        mean_metric(
            "alignment",
            squared,
            "pairs of views",
            f"mean squared distance, {views} (arXiv:2005.10242)",
            bootstrap,
        ),
        spread,
    ]


def _resampled(embeddings: np.ndarray, temperature: float) -> Callable[[np.ndarray], float]:
    """Uniformity of a resample: copies of one crystal are never paired with each other."""
    exponents = -temperature * squareform(pdist(embeddings, "sqeuclidean"))
    np.fill_diagonal(exponents, -np.inf)
    top = float(exponents.max())
    potential = np.exp(exponents - top)

    def estimate(taken: np.ndarray) -> float:
        weight = np.bincount(taken, minlength=len(potential)).astype(float)
        pairs = weight.sum() ** 2 - (weight**2).sum()
        total = weight @ potential @ weight
        return float(np.log(total / pairs) + top) if pairs > 0 and total > 0 else float("nan")

    return estimate


def _unit(embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, dtype=float)
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    if (lengths == 0).any():
        raise ValueError(
            f"{int((lengths == 0).sum())} embeddings are zero and cannot be scaled to length 1: pass "
            "on_sphere=False"
        )
    return embeddings / lengths
