"""Greedy removal of shells, ranked by the exact rise of the error of the fit.

With M = J + mu S and c = M^-1 b, leaving out the functions K raises the squared error of the fit by exactly

    delta = c_K^T ((M^-1)_KK)^-1 c_K

(the Schur complement of M on K), so one inverse ranks every shell. A shell (element, l, exponent) is removed from all
atoms of that element at once. What ranks is the rise summed over the design frames, each divided by the square of its number
of electrons (the quantity whose root is proportional to NMAE), per function removed: functions are what training pays for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from densnet.basis.shells import Basis, Element, Shell

Key = tuple[int, Shell]  # nuclear charge and shell


@dataclass
class DesignFrame:
    """One fitted frame: inverse metric, solution, and the functions of every shell. weight: of its error in the sum."""

    inverse: np.ndarray  # (n, n)
    solution: np.ndarray  # (n,)
    weight: float
    members: dict[Key, np.ndarray] = field(repr=False)  # rows of every shell, over all atoms of its element

    @staticmethod
    def of(metric: np.ndarray, projection: np.ndarray, basis: Basis, number: np.ndarray) -> DesignFrame:
        """metric: (n, n); projection: (n,), b; functions in PySCF order. The weight is 1 / N^2, N nuclear charges in all."""
        inverse = np.linalg.inv(metric)
        rows: dict[Key, list[int]] = {}
        position = 0
        for r in basis.rows(number):
            for shell in basis.elements[r].shells:
                rows.setdefault((basis.elements[r].number, shell), []).extend(range(position, position + 2 * shell.l + 1))
                position += 2 * shell.l + 1
        members = {key: np.array(found) for key, found in rows.items()}
        return DesignFrame(inverse, inverse @ projection, 1.0 / float(number.sum()) ** 2, members)

    def rise(self, functions: np.ndarray) -> float:
        """Rise of the squared error when these functions are left out."""
        c = self.solution[functions]
        return float(c @ np.linalg.solve(self.inverse[np.ix_(functions, functions)], c))

    def remove(self, keys: Sequence[Key]) -> None:
        """Leave these shells out, where the frame has them."""
        present = [key for key in keys if key in self.members]
        if not present:
            return
        functions = np.sort(np.concatenate([self.members.pop(key) for key in present]))
        keep = np.setdiff1d(np.arange(len(self.solution)), functions)
        block = self.inverse[np.ix_(functions, functions)]
        coupling = np.linalg.solve(block, self.inverse[np.ix_(functions, keep)])
        self.solution = self.solution[keep] - coupling.T @ self.solution[functions]
        self.inverse = self.inverse[np.ix_(keep, keep)] - self.inverse[np.ix_(keep, functions)] @ coupling
        self.members = {key: np.searchsorted(keep, rows) for key, rows in self.members.items()}


def prune(frames: Sequence[DesignFrame], size: int, number: np.ndarray, basis: Basis) -> Basis:
    """Remove shells until a molecule of these nuclear charges has at most `size` functions. Changes `frames`.

    Far above it, up to a twentieth of the shells go per round (at most one per element and l), close to it one by one.
    """
    kept = {e.number: list(e.shells) for e in basis.elements}
    while True:
        elements = tuple(Element(e.number, tuple(kept[e.number]), e.atom) for e in basis.elements)
        current = Basis(basis.name, basis.xc, basis.ao_basis, elements)
        above = current.size(number) - size
        if above <= 0:
            return current
        ranking = sorted(_costs(frames, kept).items(), key=lambda item: item[1])
        most = max(1, len(ranking) // 20) if above > 0.15 * size else 1
        chosen: dict[tuple[int, int], Key] = {}
        for key, _ in ranking:
            if len(chosen) < most:
                chosen.setdefault((key[0], key[1].l), key)
        for z, shell in chosen.values():
            kept[z].remove(shell)
        for frame in frames:
            frame.remove(list(chosen.values()))


def _costs(frames: Sequence[DesignFrame], kept: dict[int, list[Shell]]) -> dict[Key, float]:
    """Weighted rise per function of every shell that may go."""
    rise: dict[Key, float] = {}
    functions: dict[Key, int] = {}
    for frame in frames:
        for key, rows in frame.members.items():
            rise[key] = rise.get(key, 0.0) + frame.weight * frame.rise(rows)
            functions[key] = functions.get(key, 0) + len(rows)
    # Every element keeps two s shells: one to carry charge, one to shape it.
    free = {key for key in rise if key[1].l > 0 or sum(s.l == 0 for s in kept[key[0]]) > 2}
    return {key: rise[key] / functions[key] for key in free}
