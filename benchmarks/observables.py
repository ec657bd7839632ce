"""Observables from the density against the same by PySCF from the SCF density matrix: what the fit costs, and what the model.

    python benchmarks/observables.py --labels labels.h5 --data fits.h5 --record docs/results/observables.json

For some test frames: the electrostatic potential on the surface of 1.4 times the van der Waals radii (largest and rms
difference), Hirshfeld charges, and how near the dipole summed from a cube file's numbers comes to that of the coefficients.
labels.h5 holds the density matrices of the frames that fits.h5 fits, in the same order.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pyscf import dft, gto

from densnet.basis.shells import Basis
from densnet.cli import run
from densnet.data.fits import Fits, read_fits
from densnet.data.labels import read_labels
from densnet.errors import ConfigError, DataError
from densnet.model.checkpoint import load_model
from densnet.observables.cube import CubeGrid, difference_cube, read_cube
from densnet.observables.fitted_charges import fit_charges
from densnet.observables.hirshfeld import hirshfeld
from densnet.observables.multipoles import dipole
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.surface import van_der_waals_surface
from densnet.record import write_record
from densnet.reference.fitting import orbital_molecule, scf_density
from densnet.structures import Density, Molecule, Molecules
from densnet.units import MILLIDEBYE_PER_AU

BLOCK = 200  # points; int1e_grids holds a matrix for each
CUBES = ((0.2, 6.0), (0.15, 9.0), (0.1, 9.0))  # spacing, margin


@dataclass(frozen=True)
class Difference:
    """From the SCF density, largest over frames and points or atoms, and rms."""

    largest: float
    rms: float


@dataclass(frozen=True)
class CubeDipole:
    """spacing, margin: bohr; points; difference_mD: largest over components."""

    spacing: float
    margin: float
    points: int
    difference_mD: float


@dataclass(frozen=True)
class Report:
    """Potentials in mHa/e at `points` points in all (largest_potential: of PySCF's); charges in e; rms_fitted_charges: of the

    potential that point charges leave, mHa/e.
    """

    frames: int
    points: int
    basis: str
    largest_potential: float
    potential_fit: Difference
    potential_model: Difference
    hirshfeld_fit: Difference
    hirshfeld_model: Difference
    rms_fitted_charges: float
    cube: tuple[CubeDipole, ...]


def scf_potential(mol: gto.Mole, matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(K,) hartree/e of nuclei and density matrix, by PySCF."""
    distance = np.linalg.norm(point[:, None] - mol.atom_coords(), axis=-1)
    nuclear = (mol.atom_charges() / distance).sum(1)
    blocks = np.array_split(point, -(-len(point) // BLOCK))
    return nuclear - np.concatenate([np.einsum("gpq,pq->g", mol.intor("int1e_grids", grids=x), matrix) for x in blocks])


def scf_hirshfeld(mol: gto.Mole, matrix: np.ndarray, basis: Basis, number: np.ndarray) -> np.ndarray:
    """(N,) e, on PySCF's grid of level 5, with its own evaluation of the free atoms' Gaussians."""
    grid = dft.gen_grid.Grids(mol)
    grid.level = 5
    grid.build(with_non0tab=False)
    point = np.asarray(grid.coords)
    rho, square = scf_density(mol, matrix, point), (point[:, None] - mol.atom_coords()) ** 2
    free = []
    for a, row in enumerate(basis.rows(number)):
        atom = basis.elements[row].atom
        exponent, coefficient = np.array(atom.exponent), np.array(atom.coefficient)
        gaussian = np.exp(-exponent * square[:, a].sum(1)[:, None])
        free.append(gaussian @ (coefficient * (2 * exponent / np.pi) ** 0.75))
    prior = np.sum(free, axis=0)
    share = np.clip(free, 1e-40, None)  # tails of fitted atoms may be negative
    share /= share.sum(0)
    return share @ (grid.weights * (prior - rho))


def cube_dipole(molecule: Molecule, density: Density, basis: Basis, spacing: float, margin: float) -> CubeDipole:
    """The dipole from the numbers of a difference cube (density minus free atoms, which have none) against the exact one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "difference.cube"
        difference_cube(path, molecule, density, basis, CubeGrid.around(molecule, spacing, margin), progress=False)
        _, grid, values = read_cube(path)
    flat, start, total = values.reshape(-1), 0, np.zeros(3)
    for point in grid.points():
        total -= flat[start : start + len(point)] @ point * grid.volume
        start += len(point)
    exact = dipole(Molecules.of([molecule]), density, basis.multiplicity)[0].numpy()
    return CubeDipole(spacing, margin, grid.size, float(np.abs(total - exact).max()) * MILLIDEBYE_PER_AU)


def difference(found: list[np.ndarray], expected: list[np.ndarray], scale: float = 1.0) -> Difference:
    error = scale * (np.concatenate(found) - np.concatenate(expected))
    return Difference(float(np.abs(error).max()), float(np.sqrt(np.mean(error**2))))


def of_frame(fits: Fits, f: int) -> tuple[Molecule, Density]:
    molecule = fits.frame(f)
    exponent = torch.as_tensor(fits.basis.slot_exponent[fits.basis.rows(molecule.number)])
    return molecule, Density(torch.as_tensor(fits.coefficient[fits.atoms(f)]).to(torch.float64), exponent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="labels.h5 with density matrices")
    parser.add_argument("--data", type=Path, default=Path("datasets/ethanol.h5"), help="their fits")
    parser.add_argument("--model", type=Path, default=Path("models/ethanol"))
    parser.add_argument("--frames", type=int, default=20, help="test frames, evenly spaced")
    parser.add_argument("--record", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.frames < 1:
        raise ConfigError(f"--frames {arguments.frames} found; expected at least 1")
    labels, fits, model = read_labels(arguments.labels), read_fits(arguments.data), load_model(arguments.model)
    test = fits.indices("test")
    chosen = test[np.linspace(0, len(test) - 1, min(arguments.frames, len(test))).astype(int)]
    potential: list[list[np.ndarray]] = [[], [], []]  # PySCF, fit, model
    charges: list[list[np.ndarray]] = [[], [], []]
    left: list[float] = []
    for f in chosen.tolist():
        molecule, fit = of_frame(fits, f)
        if np.abs(labels.frame(f).position - molecule.position).max() > 1e-6:
            raise DataError(f"frame {f} of {arguments.labels} and {arguments.data} differ; expected the fits of these labels")
        with torch.no_grad():
            predicted = model.density(Molecules.of([molecule]))
        matrix = labels.density_matrix(f)
        mol = orbital_molecule(molecule, labels.level.ao_basis, matrix)
        point = van_der_waals_surface(molecule, 1.4)
        potential[0].append(scf_potential(mol, matrix, point.numpy()))
        charges[0].append(scf_hirshfeld(mol, matrix, fits.basis, molecule.number))
        for k, (density, basis) in enumerate(((fit, fits.basis), (predicted, model.basis)), 1):
            potential[k].append(electrostatic_potential_on_points(molecule, density, basis, point).numpy())
            charges[k].append(hirshfeld(molecule, density, basis).charge)
        left.append(fit_charges(molecule, fit, fits.basis).rms)
    report = Report(
        frames=len(chosen),
        points=sum(map(len, potential[0])),
        basis=fits.basis.name,
        largest_potential=1e3 * float(max(np.abs(v).max() for v in potential[0])),
        potential_fit=difference(potential[1], potential[0], 1e3),
        potential_model=difference(potential[2], potential[0], 1e3),
        hirshfeld_fit=difference(charges[1], charges[0]),
        hirshfeld_model=difference(charges[2], charges[0]),
        rms_fitted_charges=1e3 * float(np.mean(left)),
        cube=tuple(cube_dipole(*of_frame(fits, int(chosen[0])), fits.basis, *setting) for setting in CUBES),
    )
    print(report)
    if arguments.record:
        write_record(arguments.record, report)


if __name__ == "__main__":
    run(main)
