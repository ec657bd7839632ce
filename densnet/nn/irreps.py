"""Which irreps features have, and the Clebsch-Gordan paths between them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from e3nn import o3
from torch import Tensor

Irrep = tuple[int, int]  # (l, parity)


@dataclass(frozen=True)
class Irreps:
    """The irreps of one feature block, each with the same number of channels; components are laid out in this order."""

    irreps: tuple[Irrep, ...]

    @staticmethod
    def natural(lmax: int) -> Irreps:
        """l = 0..lmax with parity (-1)^l: those a spherical-harmonic expansion of a scalar field has."""
        return Irreps(tuple((l, (-1) ** l) for l in range(lmax + 1)))

    @staticmethod
    def both_parities(lmax: int) -> Irreps:
        """l = 0..lmax in both parities: adds pseudoscalars, pseudovectors, ..."""
        return Irreps(tuple((l, p * (-1) ** l) for p in (1, -1) for l in range(lmax + 1)))

    @property
    def dim(self) -> int:
        return sum(2 * l + 1 for l, _ in self.irreps)

    def reachable(self, source: Irreps, lmax_edge: int) -> Irreps:
        """Those of these irreps that some path from `source` leads to (a pseudoscalar needs a pseudotensor before it)."""
        return Irreps(
            tuple(
                (l, p)
                for l, p in self.irreps
                if any(p == q * (-1) ** e and abs(k - e) <= l <= k + e for k, q in source.irreps for e in range(lmax_edge + 1))
            )
        )

    def slices(self) -> list[slice]:
        out, start = [], 0
        for l, _ in self.irreps:
            out.append(slice(start, start + 2 * l + 1))
            start += 2 * l + 1
        return out

    @property
    def degrees(self) -> list[int]:
        """The l of every component."""
        return [l for l, _ in self.irreps for _ in range(2 * l + 1)]

    def e3nn(self, channels: int) -> o3.Irreps:
        return o3.Irreps([(channels, ir) for ir in self.irreps])  # pyright: ignore[reportReturnType] - metaclass hides __init__


@dataclass(frozen=True)
class Paths:
    """All coupling paths. triple: (edge l, i_in, i_out) of each, ordered by i_out, i_in, edge l.

    coupling: per input irrep (n_edge, (2 l_in + 1) * K), its K columns ordered like its paths, 2 l_out + 1 to a path.
    """

    triple: tuple[tuple[int, int, int], ...]
    coupling: tuple[Tensor, ...]

    def count(self, i_in: int, i_out: int) -> int:
        return sum((i, o) == (i_in, i_out) for _, i, o in self.triple)


def coupling(l_in: int, l_edge: int, l_out: int) -> Tensor:
    """(2 l_in + 1, 2 l_edge + 1, 2 l_out + 1), float64: Clebsch-Gordan coefficients of a path.

    e3nn's order of arguments decides the sign of the paths with odd l_in + l_edge + l_out. Scaled by sqrt(2 l_out + 1): with
    component-normalised harmonics (variance one) a path then keeps the variance of its input.
    """
    return o3.wigner_3j(l_in, l_edge, l_out, dtype=torch.float64) * sqrt(2 * l_out + 1)


def coupling_paths(irreps_in: Irreps, lmax_edge: int, irreps_out: Irreps) -> Paths:
    """Clebsch-Gordan coefficients of every allowed path, ordered by output irrep."""
    columns: list[list[Tensor]] = [[] for _ in irreps_in.irreps]
    triple = []
    for i_out, (l_out, p_out) in enumerate(irreps_out.irreps):
        for i_in, (l_in, p_in) in enumerate(irreps_in.irreps):
            for l_edge in range(lmax_edge + 1):
                if abs(l_in - l_edge) <= l_out <= l_in + l_edge and p_in * (-1) ** l_edge == p_out:
                    block = torch.zeros((lmax_edge + 1) ** 2, 2 * l_in + 1, 2 * l_out + 1, dtype=torch.float64)
                    block[l_edge**2 : (l_edge + 1) ** 2] = coupling(l_in, l_edge, l_out).transpose(0, 1)
                    columns[i_in].append(block)
                    triple.append((l_edge, i_in, i_out))
    empty = [torch.zeros((lmax_edge + 1) ** 2, 2 * l + 1, 0, dtype=torch.float64) for l, _ in irreps_in.irreps]
    return Paths(tuple(triple), tuple(torch.cat([e, *c], dim=-1).flatten(1) for e, c in zip(empty, columns)))
