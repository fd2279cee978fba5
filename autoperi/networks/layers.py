"""Radial bases, ragged sums and the e3nn interaction: the only file that knows e3nn."""

import math

import torch
from e3nn import o3
from e3nn.nn import Activation, FullyConnectedNet, Gate
from jaxtyping import Float, Int
from torch import Tensor, nn

Irreps = o3.Irreps

_NEIGHBOURS = 6.0
"""Divides a sum over neighbours, to keep features of order one."""


def sum_by(values: Tensor, index: Int[Tensor, "rows"], size: int) -> Tensor:
    """Sum rows of ``values`` that share an index; [rows, ...] -> [size, ...]."""
    return values.new_zeros((size, *values.shape[1:])).index_add(0, index, values)


def mean_by(values: Tensor, index: Int[Tensor, "rows"], size: int) -> Tensor:
    """Mean of the rows that share an index; rows of an index that does not occur are zero."""
    counts = torch.bincount(index, minlength=size).clamp_min(1).to(values.dtype)
    return sum_by(values, index, size) / counts.reshape(-1, *[1] * (values.ndim - 1))


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


class RadialBasis(nn.Module):
    """Bessel functions under a polynomial envelope, after Gasteiger et al., arXiv:2003.03123, eqs. 7-8.

    With x = d / cutoff it is sin(nπx) / (x + 0.1) where theirs is sin(nπx) / d: finite at zero distance.
    """

    frequencies: Tensor

    def __init__(self, count: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("frequencies", math.pi * torch.arange(1, count + 1), persistent=False)

    def forward(self, distance: Float[Tensor, "edges"]) -> tuple[Float[Tensor, "edges count"], Tensor]:
        """Values [edges, count] and the envelope [edges], which is 1 at zero and 0 at the cutoff."""
        x = distance / self.cutoff
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        basis = torch.sin(self.frequencies.to(x) * x[:, None]) / (x[:, None] + 0.1)
        return basis * envelope[:, None], envelope


class Interaction(nn.Module):
    """One e3nn convolution with l <= 2 features and a gate (Batzner et al., arXiv:2101.03164)."""

    edge_irreps = o3.Irreps("1x0e+1x1o+1x2e")

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps, radial: int) -> None:
        super().__init__()
        scalars = o3.Irreps([(m, ir) for m, ir in irreps_out if ir.l == 0])
        gated = o3.Irreps([(m, ir) for m, ir in irreps_out if ir.l > 0])
        gates = o3.Irreps(f"{sum(m for m, _ in gated)}x0e")
        acts = [nn.functional.silu] * len(scalars)
        gate_acts = [torch.sigmoid] * len(gates)
        self.gate = Gate(scalars, acts, gates, gate_acts, gated) if gated else Activation(scalars, acts)
        self.before = o3.Linear(irreps_in, irreps_in)
        irreps_mid, instructions = [], []
        for i, (channels, ir_in) in enumerate(irreps_in):
            for j, (_, ir_edge) in enumerate(self.edge_irreps):
                for ir_out in ir_in * ir_edge:
                    if ir_out in self.gate.irreps_in or ir_out == o3.Irrep("0e"):
                        instructions.append((i, j, len(irreps_mid), "uvu", True))
                        irreps_mid.append((channels, ir_out))
        irreps_mid, order, _ = o3.Irreps(irreps_mid).sort()  # pyright: ignore[reportAttributeAccessIssue]
        instructions = [(i, j, order[k], mode, train) for i, j, k, mode, train in instructions]
        self.product = o3.TensorProduct(
            irreps_in,
            self.edge_irreps,
            irreps_mid,
            sorted(instructions, key=lambda ins: ins[2]),
            shared_weights=False,
            internal_weights=False,
        )
        self.weights = FullyConnectedNet([radial, 32, self.product.weight_numel], nn.functional.silu)
        self.after = o3.Linear(irreps_mid.simplify(), self.gate.irreps_in)
        self.skip = o3.Linear(irreps_in, self.gate.irreps_in)
        self.irreps_in, self.irreps_out = irreps_in, self.gate.irreps_out

    def forward(
        self,
        sites: Float[Tensor, "sites channels"],
        atoms: Float[Tensor, "atoms channels"],
        site: Int[Tensor, "edges"],
        atom: Int[Tensor, "edges"],
        edge: Float[Tensor, "edges 9"],
        radial: Float[Tensor, "edges radial"],
    ) -> Float[Tensor, "sites channels_out"]:
        """Sum over atoms in range, plus a skip path; ``atoms`` are the sites' features, rotated."""
        message = self.product(self.before(atoms)[atom], edge, self.weights(radial))
        gathered = sum_by(message, site, len(sites)) / _NEIGHBOURS
        return self.gate(self.after(gathered) + self.skip(sites))


def edge_harmonics(vector: Float[Tensor, "edges 3"]) -> Float[Tensor, "edges 9"]:
    """Real spherical harmonics l = 0, 1, 2 of the edge directions, component-normalised."""
    return o3.spherical_harmonics([0, 1, 2], vector, normalize=True, normalization="component")


def rotate_features(
    features: Float[Tensor, "atoms channels"], irreps: o3.Irreps, rotation: Float[Tensor, "atoms 3 3"]
) -> Float[Tensor, "atoms channels"]:
    """Apply one rotation (or rotoinversion) per row to features with l <= 2.

    The matrices of l = 1 and 2 are read off the spherical harmonics of nine fixed directions, which is
    exact for improper operations too and needs no angles.
    """
    blocks = []
    probes = _PROBES.to(rotation)
    for (channels, irrep), part in zip(irreps, irreps.slices(), strict=True):
        block = features[:, part]
        if irrep.l > 0:
            here = o3.spherical_harmonics(irrep.l, probes, normalize=True)
            there = o3.spherical_harmonics(irrep.l, probes @ rotation.transpose(-1, -2), normalize=True)
            # D with Y(R p) = D Y(p) for every probe p
            matrix = there.transpose(-1, -2) @ torch.linalg.pinv(here).T
            parity = torch.linalg.det(rotation).sign() if irrep.p != (-1) ** irrep.l else None
            block = block.unflatten(-1, (channels, irrep.dim)) @ matrix.transpose(-1, -2)
            block = block.flatten(1) if parity is None else block.flatten(1) * parity[:, None]
        elif irrep.p == -1:
            block = block * torch.linalg.det(rotation).sign()[:, None]
        blocks.append(block)
    return torch.cat(blocks, -1)


_PROBES = nn.functional.normalize(
    torch.tensor(
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, -1, 1], [2, 1, -1], [1, 2, 3]],
        dtype=torch.float64,
    ),
    dim=-1,
)
