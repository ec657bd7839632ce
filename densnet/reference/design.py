"""Design density bases: start even-tempered and large, remove the shells that matter least, refine the exponents.

    python -m densnet.reference.design --labels ethanol.h5 water.h5 ... --functions small=380 medium=680 large=870
        --held-out pyridine.h5 ... --out densnet/basis/library --record docs/results/basis.json

`--functions` counts those of the first frame of the first file. All files must be of one level of theory. The record gives,
for every molecule, the error of the fit against its SCF density (the fit floor) for every basis.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from scipy.linalg import cho_factor, cho_solve
from tqdm import tqdm

from densnet.basis.shells import Basis
from densnet.cli import run
from densnet.data.labels import Labels, read_labels
from densnet.errors import BasisError, ConfigError
from densnet.record import write_record
from densnet.reference.atoms import free_atom
from densnet.reference.even_tempered import LMAX, even_tempered, make_basis
from densnet.reference.fitting import density_on_grid, fit, fitted_density, nmae_percent, project
from densnet.reference.pruning import prune
from densnet.reference.refinement import RefinementFrame, refine

DESIGN_WEIGHT = 0.1  # hartree*bohr; mu of the metric that ranks: 0.1 gave lower real-space errors than 0.5 or 3
GRID_LEVEL = 3


@dataclass(frozen=True)
class Floor:
    """Fit of one molecule. nmae_percent: mean over its frames, against the SCF density; condition: the worst one's."""

    molecule: str
    frames: int
    functions: int
    nmae_percent: float
    condition: float


@dataclass(frozen=True)
class Designed:
    """One basis and what it does. error_percent: relative_error_percent of the design frames."""

    name: str
    hash: str
    shells: str
    error_percent: float
    used: tuple[Floor, ...]
    held_out: tuple[Floor, ...]


@dataclass(frozen=True)
class Design:
    """What a design run writes down."""

    bases: tuple[Designed, ...]
    wall_s: float


def describe(basis: Basis) -> str:
    """One line per element: number of shells of each l."""
    return "; ".join(
        f"{chemical_symbols[e.number]}: "
        + "".join(f"{sum(s.l == l for s in e.shells)}{'spdfghi'[l]}" for l in range(basis.lmax + 1))
        for e in basis.elements
    )


def open_files(paths: Sequence[Path]) -> list[Labels]:
    """Raises BasisError if the label files are of different levels of theory."""
    files = [read_labels(path) for path in paths]
    level = files[0].level
    for path, file in zip(paths, files):
        if (file.level.xc, file.level.ao_basis) != (level.xc, level.ao_basis):
            raise BasisError(
                f"{path} is of level {file.level.xc}/{file.level.ao_basis}, {paths[0]} of {level.xc}/{level.ao_basis}; expected "
                "one; a basis belongs to one level"
            )
    return files


def load_frames(files: Sequence[Labels], per_file: int, start: Basis) -> list[RefinementFrame]:
    """The first training frames of every file, fitted in the start basis."""
    frames = []
    wanted = [(labels, int(f)) for labels in files for f in labels.indices("train")[:per_file]]
    for labels, f in tqdm(wanted, desc="projecting", unit="frame"):
        molecule = labels.frame(f)
        found = project(molecule, labels.density_matrix(f), labels.level.ao_basis, start, overlap=True)
        assert found.overlap_projection is not None
        metric = cho_factor(found.coulomb + DESIGN_WEIGHT * found.overlap)
        coefficient = cho_solve(metric, found.projection + DESIGN_WEIGHT * found.overlap_projection)
        frames.append(RefinementFrame(molecule, start, coefficient, DESIGN_WEIGHT))
    return frames


def design(frames: Sequence[RefinementFrame], size: int, number: np.ndarray, basis: Basis, iterations: int) -> Basis:
    """Prune to a quarter above the size, refine a little, prune to the size, refine.

    What is removed last is judged with exponents that have already moved to where the others leave room.
    """
    between = prune([frame.pruning(basis) for frame in frames], size + size // 4, number, basis)
    if iterations:
        between = refine(between, frames, max(1, iterations // 4))
    final = prune([frame.pruning(between) for frame in frames], size, number, between)
    return refine(final, frames, iterations) if iterations else final


def name_of(labels: Labels) -> str:
    """Sum formula of the first frame, carbon and hydrogen first."""
    number = labels.frame(0).number
    order = sorted(set(number.tolist()), key=lambda z: (z != 6, z != 1, chemical_symbols[z]))
    return "".join(chemical_symbols[z] + (str(n) if (n := int((number == z).sum())) > 1 else "") for z in order)


def floors(files: Sequence[Labels], per_file: int, basis: Basis) -> tuple[Floor, ...]:
    """Fit floors of the last frames of every file (test frames where it has them)."""
    out = []
    for labels in tqdm(files, desc=f"fit floors of {basis.name}", unit="molecule"):
        frames = (labels.indices("test") if len(labels.indices("test")) else labels.indices("train"))[-per_file:]
        errors, conditions = [], []
        for f in map(int, frames):
            molecule, matrix = labels.frame(f), labels.density_matrix(f)
            found = fit(molecule, project(molecule, matrix, labels.level.ao_basis, basis), labels.dipole[f], basis)
            grid = density_on_grid(molecule, matrix, labels.level.ao_basis, GRID_LEVEL)
            density = fitted_density(molecule, found.coefficient, basis, grid.point)
            errors.append(nmae_percent(density, grid, molecule.n_electrons))
            conditions.append(found.condition)
        functions = basis.size(labels.frame(0).number)
        out.append(Floor(name_of(labels), len(frames), functions, float(np.mean(errors)), max(conditions)))
    return tuple(out)


def relative_error_percent(frames: Sequence[RefinementFrame], basis: Basis) -> float:
    """100 |d~ - p| / |d~| in M, squares weighted over the frames as in the design; d~ the fit in the start basis."""
    error = sum(frame.weight * frame.error(basis)[0] for frame in frames)
    return 100.0 * float(np.sqrt(error / sum(frame.weight * frame.norm for frame in frames)))


def sizes(text: Sequence[str]) -> dict[str, int]:
    """["small=380", ...] -> {"small": 380, ...}. Raises ConfigError for anything else."""
    try:
        return {name: int(number) for name, number in (item.split("=") for item in text)}
    except ValueError as error:
        raise ConfigError(f"--functions {' '.join(text)} cannot be read; expected name=number ..., as in small=380") from error


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.reference.design", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, nargs="+", required=True, help="label files of the molecules to design for")
    parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="label files of molecules to judge by only")
    parser.add_argument("--frames", type=int, default=1, help="training frames of each file to design on")
    parser.add_argument("--floor-frames", type=int, default=2, help="frames of each file to judge on")
    parser.add_argument("--functions", nargs="+", required=True, help="name=largest number of functions of the first molecule")
    parser.add_argument("--ratio", type=float, default=1.9, help="of the even-tempered start")
    parser.add_argument("--iterations", type=int, default=60, help="of the refinement; 0 leaves it out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bases")
    parser.add_argument("--record", type=Path, help="JSON file with the floors of every molecule and this machine")
    arguments = parser.parse_args()
    clock, wanted = time.perf_counter(), sizes(arguments.functions)
    used, held_out = open_files(arguments.labels), open_files([arguments.labels[0], *arguments.held_out])[1:]
    level, number = used[0].level, used[0].frame(0).number
    elements = sorted({int(z) for labels in used for z in labels.number})
    missing = sorted({int(z) for labels in held_out for z in labels.number} - set(elements))
    if missing:
        raise BasisError(f"the held-out files have elements Z={missing} that no other file has; design for them too")
    atoms = {z: free_atom(z, level.xc, level.ao_basis) for z in elements}
    shells = {z: even_tempered(z, arguments.ratio, LMAX) for z in elements}
    basis = make_basis("start", level.xc, level.ao_basis, shells, atoms)
    frames = load_frames(used, arguments.frames, basis)
    designed = []
    for name, size in sorted(wanted.items(), key=lambda item: -item[1]):
        print(f"{name}: from {basis.size(number)} functions to {size}", flush=True)
        basis = replace(design(frames, size, number, replace(basis, name=name), arguments.iterations), name=name)
        basis.save(arguments.out / f"{name}.json")
        print(f"{arguments.out / name}.json: {basis.size(number)} functions, {describe(basis)}, hash {basis.hash}", flush=True)
        designed.append(
            Designed(
                name,
                basis.hash,
                describe(basis),
                relative_error_percent(frames, basis),
                floors(used, arguments.floor_frames, basis),
                floors(held_out, arguments.floor_frames, basis),
            )
        )
    for one in designed:
        for title, found in (("used", one.used), ("held out", one.held_out)):
            print(f"{one.name}, {title}: fit floor {np.mean([f.nmae_percent for f in found]):.3f} % on average")
    if arguments.record:
        write_record(arguments.record, Design(tuple(designed), time.perf_counter() - clock))


if __name__ == "__main__":
    run(main)
