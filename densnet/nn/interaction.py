"""Equivariant message passing in the dense Clebsch-Gordan form.

Features are (node, component, channel): the components of all irreps (each once, times `channels`), channels last. For edge
(s -> t) with harmonics Y and radial weights w,

    M = (Y @ C) as (E, 2 l_in + 1, K);   m = (M^T h[s]) * w by path;   a_t = sum over edges m

for each input irrep, whose C (n_edge, (2 l_in + 1) K) holds all its coupling paths (edge l, input irrep, output irrep) side by
side. The result equals e3nn's `uvu` tensor product of the same paths (tests/test_nn.py) and uses only matrix products and
pointwise steps, so it is differentiable to any order and compiles. On a CPU one loop over the edges does the same several times
faster (densnet.nn.kernel), where a caller asks for it (EdgeFeatures.kernel).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from densnet.nn.edges import EdgeFeatures
from densnet.nn.irreps import Irreps, coupling_paths
from densnet.nn.kernel import convolve, tables

# Factors that give SiLU and the sigmoid of a unit normal variable a unit second moment.
SILU_GAIN, SIGMOID_GAIN = 1.6790, 1.8467


def unit_linear(n_in: int, n_out: int, bias: bool = False, gain: float = 1.0) -> nn.Linear:
    """A linear map that starts with unit variance out for unit variance in (torch's default starts with a third of it,

    which over several equivariant layers leaves the high-l features too small to learn from).
    """
    linear = nn.Linear(n_in, n_out, bias=bias)
    nn.init.normal_(linear.weight, std=gain * n_in**-0.5)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear


def radial_network(size: int, hidden: int, rank: int | None, outputs: int) -> nn.Sequential:
    """Radial basis (E, size) -> (E, outputs), the weights of all paths and channels; its last map has no bias.

    rank: every weight is a combination of so many functions of the distance, the same ones for all, instead of `hidden`: that
    makes the widest matrix product of a layer cheaper. None: no such bottleneck.
    """
    network = nn.Sequential(
        unit_linear(size, hidden, bias=True),
        nn.SiLU(),
        unit_linear(hidden, hidden, bias=True, gain=SILU_GAIN),
        nn.SiLU(),
    )
    if rank is None:
        return network.append(unit_linear(hidden, outputs, gain=SILU_GAIN))
    return network.append(unit_linear(hidden, rank, gain=SILU_GAIN)).append(unit_linear(rank, outputs))


class ChannelMix(nn.Module):
    """One linear map over channels per irrep: (N, components, n_in) -> (N, components, n_out); bias on 0e only."""

    def __init__(self, irreps: Irreps, n_in: int, n_out: int) -> None:
        super().__init__()
        self.irreps = irreps
        self.linear = nn.ModuleList(unit_linear(n_in, n_out, bias=ir == (0, 1)) for ir in irreps.irreps)

    def forward(self, h: Tensor) -> Tensor:
        return torch.cat([linear(h[:, s]) for linear, s in zip(self.linear, self.irreps.slices())], dim=1)


class Convolution(nn.Module):
    """Channel mixing, messages, their sum over neighbours, and a linear map of all paths to each output irrep.

    channels_in, channels: of the features and of the messages and outputs; radial_size, hidden, rank: see radial_network;
    neighbours: typical number, scales the sums.
    """

    kernel_path: Tensor
    kernel_term: Tensor
    kernel_value: Tensor

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        lmax_edge: int,
        channels_in: int,
        channels: int,
        radial_size: int,
        hidden: int,
        neighbours: float,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out, self.channels = irreps_in, irreps_out, channels
        paths = coupling_paths(irreps_in, lmax_edge, irreps_out)
        # In float64 whatever the network's precision: rounded coefficients would leave a float64 model equivariant to 1e-8 only.
        for i, coupling in enumerate(paths.coupling):
            self.register_buffer(f"coupling_{i}", coupling, persistent=False)
        found = tables([l for l, _ in irreps_in.irreps], [l for l, _ in irreps_out.irreps], paths.triple)
        for name, table in zip(("path", "term", "value"), found):
            self.register_buffer(f"kernel_{name}", table, persistent=False)
        n_in, n_out = len(irreps_in.irreps), len(irreps_out.irreps)
        self.paths = [[paths.count(i, o) for o in range(n_out)] for i in range(n_in)]
        self.paths_per_output = [sum(self.paths[i][o] for i in range(n_in)) for o in range(n_out)]
        self.n_paths = len(paths.triple)
        self.radial = radial_network(radial_size, hidden, rank, self.n_paths * channels)
        self.before = ChannelMix(irreps_in, channels_in, channels)
        self.after = nn.ModuleList(unit_linear(n * channels, channels) for n in self.paths_per_output)
        self.scale = neighbours**-0.5

    def message(self, h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor) -> list[Tensor]:
        """The tensor product of every edge, one block (E, paths, 2l+1, channels) per output irrep.

        weight: (E, paths, channels). Its factor is broadcast over the components of a path, never written out.
        """
        edges, there = harmonics.shape[0], h[source]
        pieces: list[list[Tensor]] = [[] for _ in self.irreps_out.irreps]
        for i, (counts, here) in enumerate(zip(self.paths, self.irreps_in.slices())):
            columns = [n * (2 * l + 1) for n, (l, _) in zip(counts, self.irreps_out.irreps)]
            matrix = harmonics @ getattr(self, f"coupling_{i}").to(h.dtype)
            matrix = matrix.view(edges, here.stop - here.start, sum(columns))
            matrix, features = matrix.transpose(1, 2), there[:, here]
            # A scalar needs no sum over components, and a product is cheaper than a matrix product of inner size one.
            product = matrix * features if features.shape[1] == 1 else torch.bmm(matrix, features)
            # split, not slices: the backward of a slice writes a zero tensor of the size of the whole product.
            for piece, part in zip(pieces, product.split(columns, 1)):
                piece.append(part)
        blocks = []
        for piece, weight_l, (l, _) in zip(pieces, weight.split(self.paths_per_output, 1), self.irreps_out.irreps):
            block = torch.cat(piece, 1).view(edges, weight_l.shape[1], 2 * l + 1, self.channels)
            blocks.append(block * weight_l[:, :, None])
        return blocks

    def convolve(self, h: Tensor, edges: EdgeFeatures) -> list[Tensor]:
        """h: (N, dim_in, channels_in) -> (N, 2l+1, channels) per output irrep; harmonics of the edges up to lmax_edge."""
        # The envelope makes every message vanish smoothly at the cutoff, whatever the biases of the radial network; it enters
        # before the last map, which has no bias, where there is least to multiply.
        *inner, last = self.radial
        functions = edges.radial
        for step in inner:
            functions = step(functions)
        weight = last(functions * (edges.envelope * self.scale)).view(-1, self.n_paths, self.channels)
        total = self.summed_by_kernel if edges.kernel else self.summed
        return [after(x) for after, x in zip(self.after, total(self.before(h), edges, weight))]

    def summed(self, h: Tensor, edges: EdgeFeatures, weight: Tensor) -> list[Tensor]:
        """Messages summed over neighbours: one (N, 2l+1, paths * channels) per output irrep; differentiable to any order."""
        blocks = self.message(h, edges.harmonics, weight, edges.source)
        totals = [x.new_zeros((h.shape[0], *x.shape[1:])).index_add_(0, edges.target, x) for x in blocks]
        return [x.transpose(1, 2).flatten(2) for x in totals]

    def summed_by_kernel(self, h: Tensor, edges: EdgeFeatures, weight: Tensor) -> list[Tensor]:
        """The same in one loop over the edges (densnet.nn.kernel)."""
        rows = [n * (2 * l + 1) for n, (l, _) in zip(self.paths_per_output, self.irreps_out.irreps)]
        table = self.kernel_path, self.kernel_term, self.kernel_value.to(h.dtype)
        total = convolve(h, edges.harmonics, weight, edges.source, edges.target, *table, sum(rows))
        parts = zip(total.split(rows, 1), self.irreps_out.irreps)
        return [x.reshape(h.shape[0], 2 * l + 1, -1) for x, (l, _) in parts]


class Interaction(Convolution):
    """Convolution, self-connection and gate.

    Scalars pass through SiLU; every other irrep is multiplied by sigmoids of linear maps of the scalars, so O(3)
    equivariance is exact. Residual for the irreps that input and output share. Arguments: see Convolution.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        lmax_edge: int,
        channels: int,
        radial_size: int,
        hidden: int,
        neighbours: float,
        rank: int | None = None,
    ) -> None:
        super().__init__(irreps_in, irreps_out, lmax_edge, channels, channels, radial_size, hidden, neighbours, rank)
        self.shared = [(irreps_in.irreps.index(ir), o) for o, ir in enumerate(irreps_out.irreps) if ir in irreps_in.irreps]
        self.own = nn.ModuleList(unit_linear(channels, channels) for _ in self.shared)
        n_gated = len(irreps_out.irreps) - 1
        self.gate = unit_linear(channels, n_gated * channels, bias=True) if n_gated else None

    def forward(self, h: Tensor, edges: EdgeFeatures) -> Tensor:
        """h: (N, dim_in, channels) -> (N, dim_out, channels); the harmonics of the edges go up to this layer's lmax_edge."""
        outputs = self.convolve(h, edges)
        slices = self.irreps_in.slices()
        for own, (i, o) in zip(self.own, self.shared):
            outputs[o] = outputs[o] + own(h[:, slices[i]])
        gated = [SILU_GAIN * torch.nn.functional.silu(outputs[0])]
        if self.gate is not None:
            gates = SIGMOID_GAIN * torch.sigmoid(self.gate(outputs[0][:, 0]))
            gates = gates.view(h.shape[0], len(outputs) - 1, 1, self.channels)
            gated += [x * gates[:, k] for k, x in enumerate(outputs[1:])]
        for i, o in self.shared:
            gated[o] = gated[o] + h[:, slices[i]]
        return torch.cat(gated, dim=1)


class HighDegrees(Convolution):
    """Convolution to irreps above those the features have, with fewer channels, gated by the scalars beside them.

    A density basis has a few shells of high l where it has many of low l, yet in messages high l costs most.
    scalars: channels of the scalars that gate. Other arguments: see Convolution.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_out: Irreps,
        lmax_edge: int,
        channels_in: int,
        channels: int,
        radial_size: int,
        hidden: int,
        neighbours: float,
        rank: int | None,
        scalars: int,
    ) -> None:
        super().__init__(irreps_in, irreps_out, lmax_edge, channels_in, channels, radial_size, hidden, neighbours, rank)
        self.gate = unit_linear(scalars, len(irreps_out.irreps) * channels, bias=True)

    def forward(self, h: Tensor, edges: EdgeFeatures, scalars: Tensor) -> Tensor:
        """h: (N, dim_in, channels_in), scalars: (N, scalars) -> (N, dim_out, channels)."""
        outputs = self.convolve(h, edges)
        gates = SIGMOID_GAIN * torch.sigmoid(self.gate(scalars)).view(h.shape[0], len(outputs), 1, self.channels)
        return torch.cat([x * gates[:, k] for k, x in enumerate(outputs)], dim=1)
