import pytest
import torch
from e3nn import o3
from e3nn.util.test import assert_equivariant

from autoperi.networks.layers import (
    Interaction,
    Irreps,
    RadialBasis,
    edge_harmonics,
    mean_by,
    rotate_features,
    sum_by,
)
from tests.autoperi.small import largest

IRREPS = Irreps("3x0e+2x0o+2x1o+2x1e+2x2e+1x2o")


def _operations(n: int, dtype: torch.dtype) -> torch.Tensor:
    """Proper and improper in turn."""
    torch.manual_seed(0)
    rotation = o3.rand_matrix(n, dtype=torch.float64)
    rotation[1::2] *= -1
    return rotation.to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 3e-6)])
def test_rotate_features_is_the_representation(dtype, tolerance):
    """rotate_features(x, R) = D(R) x for proper and improper R and for both parities, l <= 2.

    e3nn's own D is accurate to 1e-6 only; the two theorems below hold to 1e-10.
    """
    rotation = _operations(8, dtype)
    features = torch.randn(8, IRREPS.dim, dtype=dtype)
    expected = torch.stack(
        [IRREPS.D_from_matrix(r.double()) @ x.double() for r, x in zip(rotation, features, strict=True)]
    )
    assert largest(rotate_features(features, IRREPS, rotation) - expected) < tolerance


def test_rotate_features_is_a_homomorphism():
    """D(R S) = D(R) D(S)."""
    first, second = _operations(6, torch.float64), _operations(6, torch.float64).flip(0)
    features = torch.randn(6, IRREPS.dim, dtype=torch.float64)
    twice = rotate_features(rotate_features(features, IRREPS, second), IRREPS, first)
    assert largest(twice - rotate_features(features, IRREPS, first @ second)) < 1e-10


def test_harmonics_turn_with_the_edges():
    """Y(R v) = D(R) Y(v)."""
    rotation = _operations(8, torch.float64)
    vector = torch.randn(8, 3, dtype=torch.float64)
    turned = edge_harmonics(torch.einsum("nij,nj->ni", rotation, vector))
    expected = rotate_features(edge_harmonics(vector), Interaction.edge_irreps, rotation)
    assert largest(turned - expected) < 1e-10


def test_interaction_is_equivariant():
    """A convolution with gate commutes with rotations and inversion."""
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)  # e3nn rounds its constants to the default precision
    irreps = Irreps("5x0e+3x1o+2x2e")
    layer = Interaction(irreps, irreps, 4)
    torch.set_default_dtype(torch.float32)
    site, atom = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 2, 0, 1])
    radial = torch.rand(4, 4, dtype=torch.float64)

    def convolve(features, vectors):
        return layer(features, features, site, atom, edge_harmonics(vectors), radial)

    assert_equivariant(
        convolve,
        args_in=[irreps.randn(3, -1, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)],
        irreps_in=[irreps, Irreps("1o")],
        irreps_out=[layer.irreps_out],
        tolerance=1e-6,
    )


def test_radial_envelope():
    """The envelope is 1 at zero and vanishes with two derivatives at the cutoff; so does the basis."""
    basis = RadialBasis(6, 5.0)
    at = torch.tensor([0.0, 5.0], dtype=torch.float64, requires_grad=True)
    _, envelope = basis(at)
    slope = torch.autograd.grad(envelope.sum(), at, create_graph=True)[0]
    curvature = torch.autograd.grad(slope.sum(), at)[0]
    assert envelope.tolist() == pytest.approx([1, 0], abs=1e-12)
    assert slope.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert float(curvature[1].abs()) < 1e-11
    assert largest(basis(at.detach())[0][1]) < 1e-12


def test_sums_and_means_by_index():
    """sum_by and mean_by equal the loops they stand for; an index that does not occur gives zero."""
    values, index = torch.randn(7, 2, 3), torch.tensor([2, 0, 2, 2, 0, 4, 4])
    for i in range(5):
        rows = values[index == i]
        assert largest(sum_by(values, index, 5)[i] - rows.sum(0)) < 1e-6
        mean = rows.mean(0) if len(rows) else torch.zeros(2, 3)
        assert largest(mean_by(values, index, 5)[i] - mean) < 1e-6
