"""Density network: nuclei -> coefficients of the deformation density, with exact charge."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log

import torch
from torch import Tensor, nn

from densnet.basis import moments
from densnet.basis.shells import Basis
from densnet.errors import BasisError
from densnet.model.scaling import CoefficientFrame
from densnet.nn.edges import EdgeEmbedding, EdgeFeatures
from densnet.nn.interaction import HighDegrees, Interaction
from densnet.nn.irreps import Irreps
from densnet.nn.readout import ToExponents, ToShells
from densnet.structures import Density, Molecules


class DensityNetwork(nn.Module):
    """Species -> message passing with l growing through the layers -> linear readout to every shell of every element.

    basis: the density basis; channels: per irrep; lmax: l of the features after each layer (the last one is replaced by the
    basis' l); cutoff: bohr; radial: Bessel functions; hidden: width of the radial networks; neighbours: typical number of
    neighbours, scales the sums; parity: "natural" keeps irreps of parity (-1)^l, "both" all of O(3); overlap_weight: mu of
    the one-centre metric that whitens the targets, hartree*bohr; flexible: exponents that follow the environment within a
    factor of this (1.3 lets them range from alpha_0/1.3 to 1.3 alpha_0); 1 keeps them fixed; rank: of the radial networks
    (densnet.nn.interaction.radial_network), None for full; high_channels: of those l of the basis that the layer before the
    last does not have, None for as many as the others.
    """

    def __init__(
        self,
        basis: Basis,
        channels: int,
        lmax: Sequence[int],
        cutoff: float,
        radial: int,
        hidden: int,
        neighbours: float,
        parity: str,
        overlap_weight: float,
        flexible: float = 1.0,
        rank: int | None = None,
        high_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.numbers = basis.numbers
        self.lmax = [*list(lmax)[:-1], basis.lmax]
        self.frame = CoefficientFrame(basis, overlap_weight)
        self.embedding = nn.Embedding(len(basis.numbers), channels)
        self.edges = EdgeEmbedding(cutoff, radial, max(self.lmax))
        make = {"natural": Irreps.natural, "both": Irreps.both_parities}[parity]
        # The coefficients need natural parity only, so the last layer makes no other.
        features = [Irreps.natural(0)]
        for l in self.lmax[:-1]:
            features.append(make(l).reachable(features[-1], l))
        features.append(Irreps.natural(self.lmax[-1]))
        self.high = None
        if high_channels is not None and len(self.lmax) > 1 and self.lmax[-2] < basis.lmax:
            low = self.lmax[-2]
            high = Irreps(tuple(ir for ir in features[-1].irreps if ir[0] > low))
            self.high = HighDegrees(
                features[-2], high, basis.lmax, channels, high_channels, radial, hidden, neighbours, rank, channels
            )
            features[-1], self.lmax = Irreps.natural(low), [*self.lmax[:-1], low]
        self.layers = nn.ModuleList(
            Interaction(a, b, self.lmax[i], channels, radial, hidden, neighbours, rank)
            for i, (a, b) in enumerate(pairwise(features))
        )
        width = [channels if l <= self.lmax[-1] or high_channels is None else high_channels for l in range(basis.lmax + 1)]
        self.readout = ToShells(len(basis.numbers), basis.multiplicity, width)
        self.bound = log(flexible)
        self.exponents = ToExponents(len(basis.numbers), sum(basis.multiplicity), channels) if flexible > 1 else None

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    def check_elements(self, molecules: Molecules) -> None:
        """Raise BasisError for an element the model was not made for."""
        row = self.frame.row(molecules.number)
        if bool((row < 0).any()):
            unknown = sorted(set(molecules.number[row < 0].tolist()))
            raise BasisError(
                f"the model does not know elements Z={unknown}; it was made for Z={list(self.numbers)}; train one that does"
            )

    def forward(self, molecules: Molecules, edges: EdgeFeatures | None = None) -> Density:
        """Coefficients (N, width) with sum of integrals equal to minus the molecule's charge.

        edges: made by self.edges; None to make them here. Raises BasisError, then, for an unknown element.
        """
        if edges is None:
            self.check_elements(molecules)
            edges = self.edges.of(molecules, self.dtype)
        row = self.frame.row(molecules.number)
        h = self.embedding(row)[:, None, :]
        before = h
        for layer, lmax in zip(self.layers, self.lmax):
            before, h = h, layer(h, edges.up_to(lmax))
        blocks = [h[:, l**2 : (l + 1) ** 2] for l in range(self.lmax[-1] + 1)]
        if self.high is not None:
            sizes = [2 * l + 1 for l, _ in self.high.irreps_out.irreps]
            blocks += self.high(before, edges.up_to(self.edges.lmax), h[:, 0]).split(sizes, 1)
        coefficient = self.frame.decode(self.readout(blocks, row), row)
        exponent = self._exponents(h, row)
        return Density(self._exact_charge(coefficient, exponent, molecules, row), exponent)

    def _exponents(self, h: Tensor, row: Tensor) -> Tensor:
        """(N, slots) alpha_0 exp(bound tanh(t)), t linear in the invariant features; 1 where there is no shell."""
        exponent = self.frame.exponent[row]
        if self.exponents is None:
            return exponent
        factor = torch.exp(self.bound * torch.tanh(self.exponents(h, row).to(torch.float64)))
        return torch.where(self.frame.exists[row], exponent * factor, exponent)

    def _exact_charge(self, coefficient: Tensor, exponent: Tensor, molecules: Molecules, row: Tensor) -> Tensor:
        """Move s coefficients along W^-1 q until the integral is exact (rescaling instead would move the dipole).

        q are the integrals with the exponents actually used; W is that of the fixed ones, which only sets the direction.
        """
        response = self.frame.charge_response[row]
        q = self.frame.charge[row]
        if self.exponents is not None:
            q = moments.monopole(exponent[:, : q.shape[1]]) * self.frame.exists[row][:, : q.shape[1]]
        s = coefficient[:, : q.shape[1]]
        excess = molecules.sum((q * s).sum(1)) + molecules.charge
        step = excess / molecules.sum((q * response).sum(1))
        return torch.cat([s - response * step[molecules.molecule][:, None], coefficient[:, q.shape[1] :]], dim=1)
