"""Exponents of a basis refined by gradient: the error of the fit over several frames, minimised by L-BFGS.

d~ is the fit of a large reference basis (exponents and coefficients fixed), p the best fit of it in the basis to refine,
r = d~ - p, all in the metric M = J + mu S. Because p is stationary in its coefficients c,

    d|r|^2 / d ln a_k = -2 sum over the functions of shell k:  c (d chi / d ln a | r),

and (chi | r) = 0 at the solution, so one displaced set of integrals gives the derivative of every exponent at once.
Neighbouring exponents of one l stay at least a factor MIN_RATIO apart: closer ones make the metric singular for no gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyscf import gto
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from tqdm import tqdm

from densnet.basis.ordering import pyscf_basis
from densnet.basis.shells import Basis, Element, Shell
from densnet.reference.fitting import pyscf_molecule
from densnet.reference.pruning import DesignFrame
from densnet.structures import Molecule

MIN_RATIO = 1.35
STEP = 1e-4  # of ln a, one-sided: the value at the undisplaced point is zero by stationarity


@dataclass
class RefinementFrame:
    """A molecule and its density in the reference basis. coefficient: (n,) in PySCF order, the best fit in M."""

    molecule: Molecule
    reference: Basis
    coefficient: np.ndarray
    overlap_weight: float

    def __post_init__(self) -> None:
        self._mol = pyscf_molecule(self.molecule, pyscf_basis(self.reference))
        self.weight = 1.0 / float(self.molecule.number.sum()) ** 2
        self.norm = float(self.coefficient @ self._metric(self._mol, self._mol) @ self.coefficient)

    def _metric(self, left: gto.Mole, right: gto.Mole) -> np.ndarray:
        return gto.intor_cross("int2c2e", left, right) + self.overlap_weight * gto.intor_cross("int1e_ovlp", left, right)

    def error(self, basis: Basis) -> tuple[float, dict[tuple[int, int], float]]:
        """|r|^2 and its derivatives by ln a, per (row of the element, index of the shell)."""
        aux = pyscf_molecule(self.molecule, pyscf_basis(basis))
        moved = pyscf_molecule(self.molecule, pyscf_basis(_scaled(basis, 1.0 + STEP)))
        b = self._metric(aux, self._mol) @ self.coefficient
        c = cho_solve(cho_factor(self._metric(aux, aux)), b)
        slope = (self._metric(moved, self._mol) @ self.coefficient - self._metric(moved, aux) @ c) / STEP
        gradient: dict[tuple[int, int], float] = {}
        position = 0
        for row in basis.rows(self.molecule.number):
            for k, shell in enumerate(basis.elements[row].shells):
                block = slice(position, position + 2 * shell.l + 1)
                gradient[int(row), k] = gradient.get((int(row), k), 0.0) - 2.0 * float(c[block] @ slope[block])
                position = block.stop
        return self.norm - float(b @ c), gradient

    def pruning(self, basis: Basis) -> DesignFrame:
        """The frame as `prune` wants it: projected on this basis."""
        aux = pyscf_molecule(self.molecule, pyscf_basis(basis))
        projection = self._metric(aux, self._mol) @ self.coefficient
        return DesignFrame.of(self._metric(aux, aux), projection, basis, self.molecule.number)


def _scaled(basis: Basis, factor: float) -> Basis:
    elements = tuple(Element(e.number, tuple(Shell(s.l, s.exponent * factor) for s in e.shells), e.atom) for e in basis.elements)
    return Basis(basis.name, basis.xc, basis.ao_basis, elements)


class _Parameters:
    """ln of the largest exponent of every (element, l) and, below it, free logarithms of the gaps beyond MIN_RATIO."""

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self.groups: list[tuple[int, list[int]]] = []
        for row, element in enumerate(basis.elements):
            for l in sorted({s.l for s in element.shells}):
                self.groups.append((row, [k for k, s in enumerate(element.shells) if s.l == l]))

    def start(self) -> np.ndarray:
        x = []
        for row, shells in self.groups:
            logarithm = np.log([self.basis.elements[row].shells[k].exponent for k in shells])
            gap = np.maximum(-np.diff(logarithm) - np.log(MIN_RATIO), 1e-2)
            x += [logarithm[0], *np.log(gap)]
        return np.array(x)

    def unpack(self, x: np.ndarray) -> Basis:
        shells = [list(e.shells) for e in self.basis.elements]
        position = 0
        for row, members in self.groups:
            gap = np.log(MIN_RATIO) + np.exp(x[position + 1 : position + len(members)])
            logarithm = x[position] - np.concatenate([[0.0], np.cumsum(gap)])
            for k, value in zip(members, logarithm):
                shells[row][k] = Shell(shells[row][k].l, float(np.exp(value)))
            position += len(members)
        elements = tuple(Element(e.number, tuple(s), e.atom) for e, s in zip(self.basis.elements, shells))
        return Basis(self.basis.name, self.basis.xc, self.basis.ao_basis, elements)

    def chain(self, x: np.ndarray, gradient: dict[tuple[int, int], float]) -> np.ndarray:
        """Derivatives by ln a -> derivatives by x."""
        out, position = np.zeros_like(x), 0
        for row, members in self.groups:
            g = np.array([gradient.get((row, k), 0.0) for k in members])
            below = np.cumsum(g[::-1])[::-1]  # a gap moves every exponent below it
            out[position] = below[0]
            out[position + 1 : position + len(members)] = -below[1:] * np.exp(x[position + 1 : position + len(members)])
            position += len(members)
        return out


def refine(basis: Basis, frames: Sequence[RefinementFrame], iterations: int, progress: bool = True) -> Basis:
    """The basis with better exponents, rounded to six digits. iterations: of L-BFGS, at most."""
    parameters = _Parameters(basis)
    start = parameters.start()
    norm = sum(frame.weight * frame.norm for frame in frames)
    bar = tqdm(total=iterations, desc=f"refining {basis.name}", unit="iteration", disable=not progress)

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        candidate = parameters.unpack(x)
        total, gradient = 0.0, {}
        for frame in frames:
            error, slopes = frame.error(candidate)
            total += frame.weight * error / norm
            for key, slope in slopes.items():
                gradient[key] = gradient.get(key, 0.0) + frame.weight * slope / norm
        bar.set_postfix_str(f"relative error {100 * np.sqrt(max(total, 0.0)):.4f} %")
        # The logarithm makes every iteration a relative improvement, whatever the size of the basis.
        return float(np.log(total)), parameters.chain(x, gradient) / total

    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", callback=lambda _: bar.update() and None, options={"maxiter": iterations}
    )
    bar.close()
    final = parameters.unpack(found.x)
    elements = tuple(
        Element(e.number, tuple(Shell(s.l, float(f"{s.exponent:.6g}")) for s in e.shells), e.atom) for e in final.elements
    )
    return Basis(basis.name, basis.xc, basis.ao_basis, elements)
