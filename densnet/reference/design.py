"""Design a density basis: start even-tempered and large, remove the shells whose loss costs least.

With M = J + mu S and c = M^-1 b, leaving out the functions K raises the squared error of the fit by exactly

    delta = c_K^T ((M^-1)_KK)^-1 c_K

(the Schur complement of M on K), so one inverse ranks every shell. A shell (element, l, exponent) is removed from all
atoms of that element at once; its cost is summed over the design frames, each normalised by the |d~|^2_M it starts from, and
divided by its number of functions, because functions are what training pays for.

    python -m densnet.reference.design --labels a/labels.h5 b/labels.h5 --frames 3 --functions 680 --name mine --out mine.json

`--functions` counts those of the first frame of the first file. All files must be of one level of theory.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from densnet.basis.shells import Basis, Element, FreeAtom, Shell
from densnet.cli import run
from densnet.data.labels import read_labels
from densnet.errors import BasisError
from densnet.reference.atoms import free_atom
from densnet.reference.fitting import project

DESIGN_WEIGHT = 0.1  # hartree*bohr; mu of the metric that ranks: 0.1 gave lower real-space errors than 0.5 or 3

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
    """One fitted frame: inverse metric, solution, squared norm of the fit of d, and the shell of every function."""

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


def load_frames(paths: Sequence[Path], per_file: int, ratio: float, lmax: int) -> tuple[list[DesignFrame], Basis, np.ndarray]:
    """The first training frames of label files, projected on the even-tempered start; also that basis and the nuclear

    charges of the first frame. Raises BasisError if the files are of different levels of theory.
    """
    files = [read_labels(path) for path in paths]
    level = files[0].level
    if any((f.level.xc, f.level.ao_basis) != (level.xc, level.ao_basis) for f in files):
        raise BasisError("the label files are of different levels of theory; expected one; a basis belongs to one level")
    numbers = sorted({int(z) for labels in files for z in labels.number})
    atoms = {z: free_atom(z, level.xc, level.ao_basis) for z in numbers}
    start = make_basis("start", level.xc, level.ao_basis, {z: even_tempered(z, ratio, lmax) for z in numbers}, atoms)
    frames = []
    for labels in files:
        for f in labels.indices("train")[:per_file]:
            molecule = labels.frame(int(f))
            found = project(molecule, labels.density_matrix(int(f)), level.ao_basis, start, overlap=True)
            assert found.overlap_projection is not None
            metric = found.coulomb + DESIGN_WEIGHT * found.overlap
            projection = found.projection + DESIGN_WEIGHT * found.overlap_projection
            frames.append(DesignFrame.of(metric, projection, start, molecule.number))
    return frames, start, files[0].frame(0).number


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m densnet.reference.design", description="Design a density basis.")
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="label files of the molecules to design for")
    parser.add_argument("--frames", type=int, default=3, help="training frames of each file")
    parser.add_argument("--functions", type=int, required=True, help="largest number of functions of the first molecule")
    parser.add_argument("--ratio", type=float, default=1.9, help="of the even-tempered start")
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    frames, start, number = load_frames(arguments.labels, arguments.frames, arguments.ratio, lmax=4)
    basis = prune(frames, {arguments.name: arguments.functions}, number, start)[arguments.name]
    basis.save(arguments.out)
    print(f"{arguments.out}: {basis.size(number)} functions, {describe(basis)}, hash {basis.hash}")


if __name__ == "__main__":
    run(main)
