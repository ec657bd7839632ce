"""Metric M = J + mu S of whole molecules, |d - d~|^2_M = dc^T M dc, from the integrals of `integrals`.

Two layouts. Packed, (n, n) over the functions that exist, in the order in which `block[exists]` flattens an (N, width)
block of coefficients; computed element by element, so that masked functions cost nothing. Blocked, (N, width, M, width2)
with zeros where masked, between any two sets of atoms.

Differentiable in positions (bohr) and exponents (bohr^-2). Exponents are tables (..., N, slots) like
basis.slot_exponent[basis.rows(number)]; entries of slots that an element lacks are ignored. mu (overlap_weight) in atomic
units. Results have dtype and device of the positions unless said otherwise; use float64, for the condition number of M is
1e8 and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from densnet.basis.integrals import check_exponents, pair_blocks
from densnet.basis.shells import Basis

WORKSPACE = 3.0  # peak memory of a frame, in (n, n) matrices; 2.0 was measured for 850 functions


@dataclass(frozen=True)
class Gaussians:
    """The functions on N atoms. multiplicity: slots per l; exponent: (N, S); position: (N, 3); exists: (N, S)."""

    multiplicity: tuple[int, ...]
    exponent: Tensor
    position: Tensor
    exists: Tensor

    @staticmethod
    def of(basis: Basis, number: np.ndarray, position: Tensor, exponent: Tensor | None = None) -> Gaussians:
        """number: (N,) nuclear charges; exponent: (N, S), the basis's own if None. Raises BasisError for unknown elements."""
        rows = basis.rows(number)
        if exponent is None:
            exponent = torch.as_tensor(basis.slot_exponent[rows])
        exists = torch.as_tensor(basis.slot_mask[rows], device=position.device)
        return Gaussians(basis.multiplicity, exponent.to(position), position, exists)


def metric_matrix(left: Gaussians, right: Gaussians, coulomb: float = 1.0, overlap: float = 0.0) -> Tensor:
    """coulomb * J + overlap * S between two sets of atoms, (N, width, M, width2), zero where masked.

    Raises BasisError for an exponent that is not positive.
    """
    n, m = len(left.position), len(right.position)
    # A masked slot may hold anything, and a NaN would pass through the mask into the gradients.
    a, b = (torch.where(s.exists, s.exponent, 1.0) for s in (left, right))
    check_exponents(a)
    check_exponents(b)
    i, j = (k.flatten() for k in torch.meshgrid(torch.arange(n), torch.arange(m), indexing="ij"))
    vector = right.position[j] - left.position[i]
    out = pair_blocks(left.multiplicity, a[i], right.multiplicity, b[j], vector, coulomb, overlap)
    exists, exists2 = (
        s.exists.repeat_interleave(torch.tensor(repeats, device=s.exists.device), dim=1)
        for s in (left, right)
        for repeats in [[2 * l + 1 for l, count in enumerate(s.multiplicity) for _ in range(count)]]
    )
    out = torch.where(exists[i][:, :, None] & exists2[j][:, None, :], out, 0.0)
    return out.view(n, m, *out.shape[1:]).transpose(1, 2)


@dataclass(frozen=True)
class _Group:
    """The atoms of one element: which they are, their slots in the table, slots per l, and exponents.

    exponent: (F, atoms, slots), or (slots,) if all atoms of all frames share them.
    """

    atom: list[int]
    multiplicity: tuple[int, ...]
    exponent: Tensor

    def of(self, chosen: list[int]) -> Tensor:
        """(F * P, slots) of P chosen atoms, or (1, slots)."""
        return self.exponent[None] if self.exponent.ndim == 1 else self.exponent[:, chosen].flatten(0, 1)


def _groups(basis: Basis, number: np.ndarray, position: Tensor, exponent: Tensor | None) -> list[_Group]:
    rows = basis.rows(number)
    out = []
    for row in sorted(set(rows.tolist())):
        degrees = [s.l for s in basis.elements[row].shells]
        atoms = np.flatnonzero(rows == row).tolist()
        if exponent is None:
            own = torch.as_tensor(basis.slot_exponent[row][basis.slot_mask[row]])
        else:
            own = exponent[:, atoms][:, :, np.flatnonzero(basis.slot_mask[row]).tolist()]
        check_exponents(own)
        out.append(_Group(atoms, tuple(degrees.count(l) for l in range(max(degrees) + 1)), own.to(position)))
    return out


def _frames(left: list[_Group], right: list[_Group], position: Tensor, coulomb: float, overlap: float) -> Tensor:
    """(F, n, n2); with `left is right` only half is computed."""
    symmetric = left is right
    frames, atoms = position.shape[:2]
    block: dict[tuple[int, int], Tensor] = {}
    for g, one in enumerate(left):
        for two in right[g:] if symmetric else right:
            pairs = [(i, j) for i in range(len(one.atom)) for j in range(len(two.atom)) if one is not two or i <= j]
            first, second = [i for i, _ in pairs], [j for _, j in pairs]
            origin, target = [one.atom[i] for i in first], [two.atom[j] for j in second]
            vector = (position[:, target] - position[:, origin]).flatten(0, 1)
            values = pair_blocks(one.multiplicity, one.of(first), two.multiplicity, two.of(second), vector, coulomb, overlap)
            for i, j, value in zip(origin, target, values.unflatten(0, (frames, len(pairs))).unbind(1)):
                block[i, j] = value
                if symmetric:
                    block[j, i] = value if i == j else value.transpose(1, 2)
    return torch.cat([torch.cat([block[i, j] for j in range(atoms)], dim=2) for i in range(atoms)], dim=1)


def metrics(
    basis: Basis,
    number: np.ndarray,
    position: Tensor,
    overlap_weight: float,
    exponent: Tensor | None = None,
    coulomb: float = 1.0,
    dtype: torch.dtype | None = None,
    max_bytes: float = 1e9,
) -> Tensor:
    """Packed coulomb * J + mu S of F frames of the same atoms, (F, n, n).

    number: (N,); position: (F, N, 3); exponent: (F, N, slots), the basis's own if None; dtype: of the result (the work is
    done in that of position); max_bytes: of memory beside the result, kept by working through the frames in portions (a
    gradient keeps the intermediates of all). Raises BasisError for an element the basis lacks or an exponent that is not
    positive.
    """
    n = basis.size(number)
    shared = _groups(basis, number, position, None) if exponent is None else None
    portion = max(1, int(max_bytes / (WORKSPACE * n**2 * position.element_size())))
    out = torch.empty(len(position), n, n, dtype=dtype or position.dtype, device=position.device)
    for start in range(0, len(position), portion):
        here = slice(start, start + portion)
        groups = shared or _groups(basis, number, position[here], None if exponent is None else exponent[here])
        out[here] = _frames(groups, groups, position[here], coulomb, overlap_weight)
    return out


def cross_metrics(
    basis: Basis,
    exponent: Tensor | None,
    basis2: Basis,
    exponent2: Tensor | None,
    number: np.ndarray,
    position: Tensor,
    overlap_weight: float,
    coulomb: float = 1.0,
) -> Tensor:
    """Packed products between two bases on the same atoms, (F, n, n2): left-hand and right-hand functions as in `metrics`.

    With them |d - d2|^2_M = c^T M c - 2 c^T X c2 + c2^T M2 c2 for densities in different bases or exponents.
    """
    left, right = _groups(basis, number, position, exponent), _groups(basis2, number, position, exponent2)
    return _frames(left, right, position, coulomb, overlap_weight)


def molecule_metric(
    basis: Basis, number: np.ndarray, position: Tensor, overlap_weight: float, exponent: Tensor | None = None
) -> Tensor:
    """Packed M of one molecule, (n, n). number: (N,); position: (N, 3); exponent: (N, slots). Otherwise as `metrics`."""
    return metrics(basis, number, position[None], overlap_weight, None if exponent is None else exponent[None])[0]


def batch_metrics(
    basis: Basis, number: Tensor, position: Tensor, batch: Tensor, overlap_weight: float, exponent: Tensor | None = None
) -> list[Tensor]:
    """Packed M of every molecule of a batch, each (n, n); molecules with the same atoms in the same order go together.

    number, batch: (N,), batch rising; position: (N, 3); exponent: (N, slots). Otherwise as `metrics`.
    """
    sizes = torch.bincount(batch).tolist()
    numbers, positions = [tuple(z.tolist()) for z in number.cpu().split(sizes)], position.split(sizes)
    exponents = exponent.split(sizes) if exponent is not None else None
    out: list[Tensor] = [position] * len(sizes)
    for atoms in dict.fromkeys(numbers):
        same = [k for k, other in enumerate(numbers) if other == atoms]
        e = torch.stack([exponents[k] for k in same]) if exponents is not None else None
        together = metrics(basis, np.array(atoms), torch.stack([positions[k] for k in same]), overlap_weight, e)
        for k, metric in zip(same, together.unbind()):
            out[k] = metric
    return out
