"""Design a density basis: start even-tempered and large, remove the shells whose loss costs least.

With M = J + mu S and c = M^-1 b, leaving out the functions K raises the squared error of the fit by exactly

    delta = c_K^T ((M^-1)_KK)^-1 c_K

(the Schur complement of M on K), so one inverse ranks every shell. A shell (element, l, exponent) is removed from all
atoms of that element at once; its cost is summed over the design frames, each normalised by |d|^2_M, and divided by its
number of functions, because functions are what training pays for.

    python -m densnet.reference.design out=... labels=[a.h5,b.h5]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from densnet.basis.shells import Basis, Element, FreeAtom, Shell

# (smallest, largest) exponent per l in bohr^-2 for deformation densities. Light atoms need no tight functions because
# the free atom carries the core; what is left near a nucleus has the range of the valence AOs squared.
RANGES_H = ((0.08, 60.0), (0.12, 20.0), (0.16, 10.0), (0.25, 6.0), (0.4, 5.0))
RANGES_HEAVY = ((0.08, 400.0), (0.08, 120.0), (0.1, 30.0), (0.16, 15.0), (0.25, 9.0))


def even_tempered(number: int, ratio: float, lmax: int) -> tuple[Shell, ...]:
    """Shells of one element with exponents falling by `ratio` over the ranges above, l = 0..lmax (at most 4)."""
    ranges = RANGES_H if number <= 2 else RANGES_HEAVY
    shells = []
    for l, (low, high) in enumerate(ranges[: lmax + 1]):
        n = int(np.ceil(np.log(high / low) / np.log(ratio))) + 1
        shells += [Shell(l, float(f"{a:.6g}")) for a in high * (low / high) ** (np.arange(n) / (n - 1))]
    return tuple(shells)


def make_basis(name: str, xc: str, ao_basis: str, shells: dict[int, tuple[Shell, ...]], atoms: dict[int, FreeAtom]) -> Basis:
    """Assemble a Basis from shells and free atoms per nuclear charge."""
    return Basis(name, xc, ao_basis, tuple(Element(z, shells[z], atoms[z]) for z in sorted(shells)))


@dataclass
class DesignFrame:
    """One fitted frame: inverse metric, solution, squared norm of d, and the shell of every function."""

    inverse: np.ndarray  # (n, n)
    solution: np.ndarray  # (n,)
    norm: float
    shell: list[tuple[int, Shell]]  # (nuclear charge, shell) of every function

    @staticmethod
    def of(metric: np.ndarray, projection: np.ndarray, basis: Basis, number: np.ndarray) -> DesignFrame:
        inverse = np.linalg.inv(metric)
        solution = inverse @ projection
        shell = [
            (basis.elements[r].number, s)
            for r in basis.rows(number)
            for s in basis.elements[r].shells
            for _ in range(2 * s.l + 1)
        ]
        return DesignFrame(inverse, solution, float(projection @ solution), shell)

    def cost(self, functions: np.ndarray) -> float:
        """Relative rise of the squared error when these functions are left out."""
        c = self.solution[functions]
        return float(c @ np.linalg.solve(self.inverse[np.ix_(functions, functions)], c)) / self.norm

    def remove(self, functions: np.ndarray) -> None:
        keep = np.setdiff1d(np.arange(len(self.solution)), functions)
        block = self.inverse[np.ix_(functions, functions)]
        coupling = np.linalg.solve(block, self.inverse[np.ix_(functions, keep)])
        self.solution = self.solution[keep] - coupling.T @ self.solution[functions]
        self.inverse = self.inverse[np.ix_(keep, keep)] - self.inverse[np.ix_(keep, functions)] @ coupling
        self.shell = [self.shell[i] for i in keep]


def prune(frames: Sequence[DesignFrame], sizes: dict[str, int], number: np.ndarray, basis: Basis) -> dict[str, Basis]:
    """Remove shells until a molecule of these nuclear charges has at most sizes[name] functions, for every name.

    Changes `frames`. Returns one Basis per name, largest first as removal passes each size.
    """
    kept = {e.number: list(e.shells) for e in basis.elements}
    results: dict[str, Basis] = {}
    todo = sorted(sizes.items(), key=lambda item: -item[1])
    while todo:
        current = Basis(
            todo[0][0], basis.xc, basis.ao_basis, tuple(Element(e.number, tuple(kept[e.number]), e.atom) for e in basis.elements)
        )
        if current.size(number) <= todo[0][1]:
            results[todo.pop(0)[0]] = current
            continue
        costs: dict[tuple[int, Shell], float] = {}
        for frame in frames:
            members: dict[tuple[int, Shell], list[int]] = {}
            for i, key in enumerate(frame.shell):
                members.setdefault(key, []).append(i)
            for key, functions in members.items():
                costs[key] = costs.get(key, 0.0) + frame.cost(np.array(functions)) / len(functions)
        for z, shells in kept.items():  # every element keeps two s shells: one to carry charge, one to shape it
            if sum(s.l == 0 for s in shells) <= 2:
                costs = {k: v for k, v in costs.items() if k[0] != z or k[1].l > 0}
        (z, shell), _ = min(costs.items(), key=lambda item: item[1])
        kept[z].remove(shell)
        for frame in frames:
            gone = np.array([i for i, key in enumerate(frame.shell) if key == (z, shell)], dtype=int)
            if gone.size:
                frame.remove(gone)
    return results


def describe(basis: Basis) -> str:
    """One line per element: number of shells of each l."""
    return "; ".join(
        f"{chemical_symbols[e.number]}: "
        + "".join(f"{sum(s.l == l for s in e.shells)}{'spdfghi'[l]}" for l in range(basis.lmax + 1))
        for e in basis.elements
    )
