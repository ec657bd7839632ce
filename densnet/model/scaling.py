"""The frame in which the networks see coefficients: one-centre orthonormal, per (element, l), scaled to order one.

For every element and l the one-centre block W of the metric M = J + mu S is known in closed form. With u = W^(1/2)(c - c0),
c0 the mean training coefficient (l = 0 only: any other mean would break equivariance) and s the RMS of u over training
atoms (shared over m), the networks work with v = u / s. c0 and s are buffers of the checkpoint; W follows from the basis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from densnet.basis import moments
from densnet.basis.shells import Basis


class CoefficientFrame(nn.Module):
    """Transform between (N, width) coefficients and normalised blocks (N, n_l, 2l+1) per l. Also keeps charge exact.

    overlap_weight: mu, hartree*bohr.
    """

    rows: Tensor
    exponent: Tensor
    exists: Tensor
    mean: Tensor
    charge: Tensor
    charge_response: Tensor

    def __init__(self, basis: Basis, overlap_weight: float = 0.5) -> None:
        super().__init__()
        self.multiplicity = basis.multiplicity
        rows = torch.full((119,), -1, dtype=torch.long)
        rows[list(basis.numbers)] = torch.arange(len(basis.numbers))
        self.register_buffer("rows", rows, persistent=False)
        exponent = torch.as_tensor(basis.slot_exponent)
        exists = torch.as_tensor(basis.slot_mask)
        # The frame stays in float64 whatever the networks use: moments and exact charge are computed from it.
        self.register_buffer("exponent", exponent, persistent=False)
        self.register_buffer("exists", exists, persistent=False)
        n_elements, start = exponent.shape[0], 0
        for l, n in enumerate(basis.multiplicity):
            a, there = exponent[:, start : start + n], exists[:, start : start + n]
            pair = there[:, :, None] & there[:, None, :]
            block = moments.one_centre_coulomb(l, a[:, :, None], a[:, None, :])
            block = block + overlap_weight * moments.one_centre_overlap(l, a[:, :, None], a[:, None, :])
            metric = torch.where(pair, block, torch.eye(n, dtype=torch.float64))
            values, vectors = torch.linalg.eigh(metric)
            root = vectors * values[:, None, :] ** 0.5 @ vectors.transpose(1, 2)
            inverse = vectors * values[:, None, :] ** -0.5 @ vectors.transpose(1, 2)
            keep = pair.to(torch.float64)
            self.register_buffer(f"root_{l}", root * keep, persistent=False)
            self.register_buffer(f"inverse_{l}", inverse * keep, persistent=False)
            self.register_buffer(f"scale_{l}", torch.ones(n_elements, n, dtype=torch.float64))
            start += n
            if l == 0:
                charge = moments.monopole(a) * there
                # How c changes per unit of charge at the least cost in the one-centre metric: W^-1 q.
                response = torch.linalg.solve(metric, charge[:, :, None])[:, :, 0] * there
                self.register_buffer("charge", charge, persistent=False)
                self.register_buffer("charge_response", response, persistent=False)
        self.register_buffer("mean", torch.zeros(n_elements, basis.multiplicity[0], dtype=torch.float64))

    def row(self, number: Tensor) -> Tensor:
        return self.rows[number]

    def split(self, coefficient: Tensor) -> list[Tensor]:
        """(N, width) -> blocks (N, n_l, 2l+1)."""
        sizes = [n * (2 * l + 1) for l, n in enumerate(self.multiplicity)]
        parts = coefficient.split(sizes, dim=-1)
        return [p.view(-1, n, 2 * l + 1) for l, (n, p) in enumerate(zip(self.multiplicity, parts))]

    def encode(self, coefficient: Tensor, row: Tensor) -> list[Tensor]:
        """Coefficients (N, width), float64 -> normalised blocks, float64."""
        blocks = self.split(coefficient)
        blocks[0] = blocks[0] - self.mean[row][:, :, None]
        return [
            torch.einsum("nij,njm->nim", getattr(self, f"root_{l}")[row], b) / getattr(self, f"scale_{l}")[row][:, :, None]
            for l, b in enumerate(blocks)
        ]

    def decode(self, blocks: Sequence[Tensor], row: Tensor) -> Tensor:
        """Normalised blocks, any precision -> coefficients (N, width), float64."""
        parts = [
            torch.einsum(
                "nij,njm->nim",
                getattr(self, f"inverse_{l}")[row],
                b.to(torch.float64) * getattr(self, f"scale_{l}")[row][:, :, None],
            )
            for l, b in enumerate(blocks)
        ]
        parts[0] = parts[0] + self.mean[row][:, :, None]
        return torch.cat([p.flatten(1) for p in parts], dim=1)

    @torch.no_grad()
    def fit_scales(self, coefficient: np.ndarray, number: np.ndarray) -> None:
        """Set mean and scales from training coefficients, (N, width) and (N,)."""
        c = torch.as_tensor(coefficient, dtype=torch.float64)
        row = self.rows[torch.as_tensor(number)]
        n0 = self.multiplicity[0]
        for e in row.unique():
            self.mean[e] = c[row == e][:, :n0].mean(0)
        for l in range(len(self.multiplicity)):
            getattr(self, f"scale_{l}").fill_(1.0)
        blocks = self.encode(c, row)
        for l, block in enumerate(blocks):
            scale = getattr(self, f"scale_{l}")
            for e in row.unique():
                rms = block[row == e].square().mean(dim=(0, 2)).sqrt()
                # A shell that never moves (or does not exist) keeps a tiny positive scale, so encode stays finite.
                scale[e] = rms.clamp_min(1e-3 * float(rms.max()) if float(rms.max()) > 0 else 1.0)
