"""What every layer sees of the edges: harmonics, radial basis and envelope, made once and shared by the networks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi, sqrt

import torch
from torch import Tensor, nn

from densnet.basis.harmonics import solid_harmonics
from densnet.data.neighbours import neighbours
from densnet.nn.radial import RadialBasis
from densnet.structures import Molecules


@dataclass(frozen=True)
class EdgeFeatures:
    """source, target: (E,) atom indices; harmonics: (E, (lmax+1)^2), component-normalised, e3nn order; radial: (E, size);

    envelope: (E, 1), zero beyond the cutoff, so that an edge which is too long changes nothing; kernel: whether convolutions
    use densnet.nn.kernel, which has been built then and wants target ascending.
    """

    source: Tensor
    target: Tensor
    harmonics: Tensor
    radial: Tensor
    envelope: Tensor
    kernel: bool = False

    def up_to(self, lmax: int) -> EdgeFeatures:
        """The same with harmonics up to lmax only."""
        return replace(self, harmonics=self.harmonics[:, : (lmax + 1) ** 2])


def harmonics(unit: Tensor, lmax: int) -> Tensor:
    """(E, (lmax+1)^2) real harmonics of unit vectors (E, 3): e3nn's order, squares of a degree sum to 2l+1."""
    return sqrt(4 * pi) * torch.cat(solid_harmonics(lmax, unit), dim=-1)


class EdgeEmbedding(nn.Module):
    """Edge vectors to EdgeFeatures. cutoff: bohr; radial: number of Bessel functions; lmax: of the harmonics."""

    def __init__(self, cutoff: float, radial: int, lmax: int) -> None:
        super().__init__()
        self.cutoff, self.size, self.lmax = cutoff, radial, lmax
        self.radial_basis = RadialBasis(radial, cutoff)

    def covers(self, other: EdgeEmbedding) -> bool:
        """Whether what this gives holds all that `other` would."""
        return (self.cutoff, self.size) == (other.cutoff, other.size) and self.lmax >= other.lmax

    def forward(self, position: Tensor, source: Tensor, target: Tensor, dtype: torch.dtype) -> EdgeFeatures:
        """position: (N, 3) bohr, whose differences are taken in its own precision, the rest in dtype; differentiable."""
        vector = (position[source] - position[target]).to(dtype)
        length = vector.norm(dim=-1)
        radial, envelope = self.radial_basis(length)
        return EdgeFeatures(source, target, harmonics(vector / length[:, None], self.lmax), radial, envelope)

    def of(self, molecules: Molecules, dtype: torch.dtype) -> EdgeFeatures:
        """The features of all edges within the cutoff."""
        found = neighbours(molecules, self.cutoff)
        return self(molecules.position, found.source, found.target, dtype)
