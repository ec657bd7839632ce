"""Linear maps between channels and the shells of a density basis, with weights of their own for every element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ToShells(nn.Module):
    """(N, 2l+1, channels_l) per l -> one (N, n_l, 2l+1) block per l, zero-initialised: the start is the prior alone."""

    def __init__(self, n_elements: int, multiplicity: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.ParameterList(nn.Parameter(torch.zeros(n_elements, n, c)) for n, c in zip(multiplicity, channels))
        self.bias = nn.Parameter(torch.zeros(n_elements, multiplicity[0]))

    def forward(self, h: Sequence[Tensor], row: Tensor) -> list[Tensor]:
        """h: natural-parity features, one block for every l up to the basis' lmax; row: (N,) element row."""
        blocks = [torch.einsum("nmc,nkc->nkm", x, w[row]) for x, w in zip(h, self.weight)]
        blocks[0] = blocks[0] + self.bias[row][:, :, None]
        return blocks


class ToExponents(nn.Module):
    """Invariant features -> one number per shell, (N, slots); zero-initialised: exponents start where the basis has them."""

    def __init__(self, n_elements: int, slots: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_elements, slots, channels))
        self.bias = nn.Parameter(torch.zeros(n_elements, slots))

    def forward(self, h: Tensor, row: Tensor) -> Tensor:
        """h: (N, components, channels) with the invariants in component 0; row: (N,) element row."""
        return torch.einsum("nc,nkc->nk", h[:, 0], self.weight[row]) + self.bias[row]


class FromShells(nn.Module):
    """One (N, n_l, 2l+1) block per l -> (N, 2l+1, channels) features for each l <= lmax."""

    def __init__(self, n_elements: int, multiplicity: Sequence[int], channels: int) -> None:
        super().__init__()
        self.weight = nn.ParameterList(nn.Parameter(torch.randn(n_elements, n, channels) * n**-0.5) for n in multiplicity)

    def forward(self, blocks: Sequence[Tensor], row: Tensor) -> list[Tensor]:
        return [torch.einsum("nkm,nkc->nmc", block, w[row]) for block, w in zip(blocks, self.weight)]


class FromExponents(nn.Module):
    """One number per shell, (N, slots), -> (N, channels); zero for zeros."""

    def __init__(self, n_elements: int, slots: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_elements, slots, channels) * slots**-0.5)

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        return torch.einsum("nk,nkc->nc", x, self.weight[row])
