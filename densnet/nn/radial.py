"""Radial basis of the edges: Bessel functions times a smooth envelope."""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn


class RadialBasis(nn.Module):
    """sqrt(2/c) sin(n pi r/c)/r * u(r/c), n = 1..size, u the polynomial envelope with p = 6 (value, slope and curvature

    vanish at the cutoff). Gasteiger, Gross, Guennemann, ICLR 2020, equations 7 and 8.
    """

    frequency: Tensor

    def __init__(self, size: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.register_buffer("frequency", torch.arange(1, size + 1) * pi / cutoff, persistent=False)

    def forward(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """length: (E,) bohr -> features (E, size) and envelope (E, 1)."""
        x = length[:, None] / self.cutoff
        envelope = torch.where(x < 1, 1 - 28 * x**6 + 48 * x**7 - 21 * x**8, torch.zeros_like(x))
        # sin(n pi x)/r is of order n/cutoff; the last factor brings the features to order one.
        bessel = torch.sin(length[:, None] * self.frequency) * (2 / self.cutoff) ** 0.5 / length[:, None]
        return bessel * envelope * self.cutoff**0.5, envelope
