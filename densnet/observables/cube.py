"""Cube files: values on a regular grid, written row by row as they are computed, read by VMD, PySCF, ASE and others.

The format, all lengths in bohr: two lines of text; number of atoms and origin; for each axis the number of points and the
vector from one to the next; for each atom its number, nuclear charge and position; the values, z running fastest, six in a
line, every row of z on a new line (https://paulbourke.net/dataformats/cube/, Gaussian's `cubegen`). Positions have six
decimals, values six digits. The file knows no total charge.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, DataError, StructureError
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.real_space import density_on_points
from densnet.structures import Density, Molecule

AXES = "OUTER LOOP: X, MIDDLE LOOP: Y, INNER LOOP: Z"  # ASE reads the order of the axes from this line
DECIMALS = 6
BYTES_PER_VALUE = 120  # a point, its value, and both as text on the way to the file
SLAB_POINTS = 65536  # more at once gains nothing
BAR_POINTS = 500_000  # smaller cubes are done before a progress bar could be read
SMALLEST = 1e-99  # a third digit of the exponent would leave no space between columns


@dataclass(frozen=True)
class CubeGrid:
    """A regular grid. origin: (3,) bohr; spacing: (3, 3) bohr, row k the vector between neighbours along axis k; shape: points.

    Both are rounded to the six decimals of the file, so that values belong exactly to the points the file names.
    Raises ConfigError for empty or flat grids.
    """

    origin: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        origin, spacing = np.array(self.origin, dtype=np.float64), np.array(self.spacing, dtype=np.float64)
        if origin.shape != (3,) or spacing.shape != (3, 3) or len(self.shape) != 3 or min(self.shape) < 1:
            raise ConfigError(
                f"grid with origin {origin.shape}, spacing {spacing.shape} and {self.shape} points; "
                "expected (3,), (3, 3) and three numbers > 0"
            )
        origin, spacing = origin.round(DECIMALS), spacing.round(DECIMALS)
        if not (np.isfinite(origin).all() and abs(np.linalg.det(spacing)) > 0):
            raise ConfigError(
                "the vectors of the grid span no volume or are not finite; expected three independent ones, in bohr"
            )
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "spacing", spacing)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @staticmethod
    def around(molecule: Molecule, spacing: float = 0.2, margin: float = 6.0) -> CubeGrid:
        """A box along the axes, at least `margin` bohr beyond every atom, centred on the molecule.

        Points per axis are even: the centre, where a symmetric molecule has atoms, then lies between points, and no
        potential is asked for on a nucleus. Raises ConfigError if spacing or margin is no length.
        """
        if not (1e-3 <= spacing < np.inf and 0 <= margin < np.inf):
            raise ConfigError(
                f"spacing {spacing:g} and margin {margin:g} found; expected spacing >= 0.001 and margin >= 0, in bohr"
            )
        step = round(spacing, DECIMALS)
        low, high = molecule.position.min(0), molecule.position.max(0)
        shape = 2 * (np.ceil(((high - low) + 2 * margin) / (2 * step) + 0.5).astype(int))
        return CubeGrid((low + high) / 2 - (shape - 1) / 2 * step, step * np.eye(3), tuple(shape.tolist()))

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def volume(self) -> float:
        """Volume of a grid cell, bohr^3: values times it sum to the integral."""
        return float(abs(np.linalg.det(self.spacing)))

    def points(self, most: int = SLAB_POINTS) -> Iterator[np.ndarray]:
        """All points in the order of the file, (K, 3) bohr at a time; whole rows of z, at most `most` points or one row."""
        nx, ny, nz = self.shape
        row = np.arange(nz)[:, None] * self.spacing[2]
        step = max(1, most // nz)
        for start in range(0, nx * ny, step):
            x, y = np.divmod(np.arange(start, min(start + step, nx * ny)), ny)
            first = self.origin + x[:, None] * self.spacing[0] + y[:, None] * self.spacing[1]
            yield (first[:, None] + row).reshape(-1, 3)


def write_cube(
    path: Path | str,
    molecule: Molecule,
    grid: CubeGrid,
    values: np.ndarray | Callable[[Tensor], Tensor],
    title: str,
    *,
    memory_mb: float = 64.0,
    progress: bool = True,
) -> None:
    """Write values (nx, ny, nz), or values(points (K, 3) bohr, float64) -> (K,) slab by slab; then nothing large is kept.

    memory_mb bounds a slab (never less than one row of z), besides what `values` itself uses. The file appears under its
    name only when it is whole. Raises DataError for values of the wrong shape or not finite.
    """
    path, atoms = Path(path), zip(molecule.number.tolist(), molecule.position.tolist())
    if isinstance(values, np.ndarray) and values.shape != grid.shape:
        raise DataError(f"values have shape {values.shape}; expected {grid.shape}, that of the grid")
    nz, done = grid.shape[2], 0
    line = "%13.5E" * 6 + "\n"
    row = line * (nz // 6) + ("%13.5E" * (nz % 6) + "\n" if nz % 6 else "")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with (
            temporary.open("w") as file,
            tqdm(
                total=grid.size, desc=path.name, unit="point", unit_scale=True, disable=not progress or grid.size < BAR_POINTS
            ) as bar,
        ):
            file.write(f"{' '.join(title.split())}\n{AXES}\n")
            file.write(f"{len(molecule.number):5d}{_fixed(grid.origin)}\n")
            for n, vector in zip(grid.shape, grid.spacing):
                file.write(f"{n:5d}{_fixed(vector)}\n")
            for number, position in atoms:
                file.write(f"{number:5d}{_fixed([number, *position])}\n")
            for point in grid.points(min(SLAB_POINTS, int(memory_mb * 1e6 / BYTES_PER_VALUE))):
                slab = _slab(values, point, done, path)
                for start in range(0, len(slab), nz):
                    file.write(row % tuple(slab[start : start + nz].tolist()))
                done += len(slab)
                bar.update(len(slab))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _fixed(numbers: Iterable[float]) -> str:
    return "".join(f"{x:12.6f}" for x in numbers)


def _slab(values: np.ndarray | Callable[[Tensor], Tensor], point: np.ndarray, done: int, path: Path) -> np.ndarray:
    """(K,) values at these points, of which `done` came before; fit to be written."""
    if isinstance(values, np.ndarray):
        slab = values.reshape(-1)[done : done + len(point)].astype(np.float64)
    else:
        slab = values(torch.as_tensor(point)).detach().to("cpu", torch.float64).numpy()
        if slab.shape != (len(point),):
            raise DataError(f"values at {len(point)} points have shape {slab.shape}; expected ({len(point)},)")
    bad = ~np.isfinite(slab)
    if bad.any():
        where = ", ".join(f"{x:.6f}" for x in point[bad][0])
        raise DataError(
            f"{path}: the value at ({where}) bohr is {slab[bad][0]}; expected finite numbers; a potential is infinite on a "
            "nucleus: move the grid by a fraction of its spacing"
        )
    return np.where(np.abs(slab) < SMALLEST, 0.0, slab)


def read_cube(path: Path | str) -> tuple[Molecule, CubeGrid, np.ndarray]:
    """Molecule (charge 0, of which the file knows nothing), grid and values (nx, ny, nz) of a cube file in bohr.

    Raises DataError if the file is missing, damaged, in angstrom, or holds several values per point (orbitals).
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no cube file at {path}; check the path")
    try:
        with path.open() as file:
            file.readline()
            file.readline()
            count, *origin = _numbers(file.readline(), path, "the third line", 4, 5)
            if count < 0 or origin[3:] not in ([], [1.0]):
                raise DataError(f"{path} holds orbitals or several values per point; expected one value; write them one by one")
            axes = [_numbers(file.readline(), path, f"axis {k}", 4, 4) for k in "xyz"]
            if any(n < 1 or n != int(n) for n, *_ in axes):
                found = " x ".join(f"{n:g}" for n, *_ in axes)
                raise DataError(
                    f"{path} has {found} points; expected numbers > 0 (negative ones mean angstrom); write it in bohr"
                )
            atoms = [_numbers(file.readline(), path, f"atom {k + 1}", 5, 5) for k in range(int(count))]
            grid = CubeGrid(np.array(origin[:3]), np.array([v for _, *v in axes]), tuple(int(n) for n, *_ in axes))  # type: ignore
            if grid.size > path.stat().st_size:  # before memory is asked for: a value takes two bytes at least
                raise DataError(
                    f"{path} is too short for the {grid.size} values its head promises; it was cut off; write it again"
                )
            values, done = np.empty(grid.size), 0
            while lines := file.readlines(1 << 20):
                new = np.array(" ".join(lines).split(), dtype=np.float64)
                if done + len(new) > grid.size:
                    raise DataError(f"{path} holds more than the {grid.size} values its head promises; its head is damaged")
                values[done : done + len(new)] = new
                done += len(new)
        molecule = Molecule(np.array([int(a[0]) for a in atoms]), np.array([a[2:] for a in atoms]))
    except (StructureError, ConfigError, ValueError, OverflowError) as error:
        raise DataError(f"{path} is no cube file, or damaged: {error}") from error
    if done < grid.size:
        raise DataError(f"{path} holds {done} values; its head promises {grid.size}; it was cut off; write it again")
    if not np.isfinite(values).all():
        raise DataError(f"{path} holds NaN or infinity; expected finite values; write it again")
    return molecule, grid, values.reshape(grid.shape)


def _numbers(line: str, path: Path, what: str, least: int, most: int) -> list[float]:
    words = line.split()
    if not least <= len(words) <= most:
        raise DataError(f"{path}: {what} has {len(words)} numbers; expected {least}; this is no cube file, or it was cut off")
    return [float(word) for word in words]


def density_cube(
    path: Path | str,
    molecule: Molecule,
    density: Density,
    basis: Basis,
    grid: CubeGrid,
    *,
    memory_mb: float = 256.0,
    progress: bool = True,
) -> None:
    """The electron density, e/bohr^3. memory_mb bounds the evaluation; errors as density_on_points and write_cube."""

    def values(point: Tensor) -> Tensor:
        return density_on_points(molecule, density, basis, point, memory_mb=memory_mb)

    write_cube(path, molecule, grid, values, "electron density, e/bohr^3 (densnet)", memory_mb=memory_mb, progress=progress)


def difference_cube(
    path: Path | str,
    molecule: Molecule,
    density: Density,
    basis: Basis,
    grid: CubeGrid,
    other: Density | None = None,
    *,
    memory_mb: float = 256.0,
    progress: bool = True,
) -> None:
    """The density minus `other`, of the same molecule and basis, or minus the free atoms (the deformation), e/bohr^3.

    Memory and errors as density_cube.
    """

    def values(point: Tensor) -> Tensor:
        found = density_on_points(molecule, density, basis, point, memory_mb=memory_mb, prior=False)
        if other is None:
            return found
        return found - density_on_points(molecule, other, basis, point, memory_mb=memory_mb, prior=False)

    what = "density minus free atoms" if other is None else "difference of two densities"
    write_cube(path, molecule, grid, values, f"{what}, e/bohr^3 (densnet)", memory_mb=memory_mb, progress=progress)


def potential_cube(
    path: Path | str,
    molecule: Molecule,
    density: Density,
    basis: Basis,
    grid: CubeGrid,
    *,
    nuclei: bool = True,
    memory_mb: float = 256.0,
    progress: bool = True,
) -> None:
    """The electrostatic potential, hartree/e. Raises DataError if a point lies on a nucleus; else as density_cube."""

    def values(point: Tensor) -> Tensor:
        return electrostatic_potential_on_points(molecule, density, basis, point, nuclei=nuclei, memory_mb=memory_mb)

    what = "electrostatic potential" if nuclei else "electrostatic potential of the electrons"
    write_cube(path, molecule, grid, values, f"{what}, hartree/e (densnet)", memory_mb=memory_mb, progress=progress)
