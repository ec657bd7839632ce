"""Density matrix -> coefficients of the deformation density in a Gaussian basis, with exact charge and dipole.

Minimises (d - d~ | d - d~) for d = rho - rho_SAD subject to the exact integral and dipole of d:

    J c = b + C lambda,  C^T c = t;   J = (P|Q), b_P = (P|d), C = [integral chi, integral r chi], t = moments of d

Charge and dipole of the fit are those of the density itself, whatever the basis (docs/physics.md).
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from pyscf import dft, gto

from densnet.basis import moments
from densnet.basis.ordering import free_atom_coefficients, pyscf_basis, pyscf_free_atoms, to_irreps, to_pyscf
from densnet.basis.shells import Basis
from densnet.data.fits import DensityGrid
from densnet.errors import BasisError, DataError
from densnet.structures import Molecule

MAX_CONDITION = 1e12  # of the unit-diagonal Coulomb metric; beyond this float64 leaves fewer than four digits


def pyscf_molecule(molecule: Molecule, basis: str | dict[str, list]) -> gto.Mole:
    """The molecule in PySCF, positions handed over in bohr (PySCF's own bohr-angstrom factor never enters).

    For integrals and function values, which do not depend on the number of electrons: charge and spin are PySCF's formality.
    """
    name = basis if isinstance(basis, str) else json.dumps(basis)
    mol = _template(tuple(molecule.number.tolist()), name).set_geom_(molecule.position, unit="Bohr", inplace=False)
    assert isinstance(mol, gto.Mole)
    return mol


@lru_cache(maxsize=16)
def _template(number: tuple[int, ...], basis: str) -> gto.Mole:
    """These atoms anywhere. Reading and normalising a basis takes PySCF as long as some integrals, so it is done once."""
    atoms = [(z, (0.0, 0.0, 3.0 * k)) for k, z in enumerate(number)]
    shells = json.loads(basis) if basis.startswith("{") else basis
    return gto.M(atom=atoms, unit="Bohr", basis=shells, charge=0, spin=sum(number) % 2, verbose=0)


def orbital_molecule(molecule: Molecule, ao_basis: str, matrix: np.ndarray) -> gto.Mole:
    """The molecule in the AO basis that this density matrix is in. Raises DataError if it cannot be in that basis."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PySCF recommends a package for bases it does not know
            mol = pyscf_molecule(molecule, ao_basis)
    except (RuntimeError, KeyError) as error:  # PySCF's BasisNotFoundError is a RuntimeError
        reason = " ".join(str(error).split()).strip("'\"")
        raise DataError(
            f"AO basis {ao_basis!r} cannot be used ({reason}); expected one PySCF has for all elements; correct the level"
        ) from error
    if matrix.shape != (mol.nao, mol.nao):
        raise DataError(
            f"the density matrix is {matrix.shape[0]} x {matrix.shape[1]} but {ao_basis} has {mol.nao} functions for this "
            "molecule; expected the AO basis of the labels; correct ao_basis in the label file or label again"
        )
    return mol


def _functions(kernel: torch.Tensor, l: int, basis: Basis, number: np.ndarray) -> np.ndarray:
    """(N, slots of degree l) closed-form integral `kernel` of every slot, zero where masked."""
    start = sum(basis.multiplicity[:l])
    stop = start + basis.multiplicity[l]
    return kernel.numpy()[:, start:stop] * basis.slot_mask[basis.rows(number)][:, start:stop]


def moment_constraints(basis: Basis, molecule: Molecule) -> np.ndarray:
    """C, (n, 4): integral of every function (PySCF order of to_pyscf) and its x, y, z moment about the origin."""
    number = molecule.number
    exponent = torch.as_tensor(basis.slot_exponent[basis.rows(number)])
    block = np.zeros((4, number.size, basis.width))
    s = _functions(moments.monopole(exponent), 0, basis, number)
    n0 = basis.multiplicity[0]
    block[0, :, :n0] = s
    for i in range(3):
        block[1 + i, :, :n0] = s * molecule.position[:, i, None]
        if basis.lmax >= 1:
            n1 = basis.multiplicity[1]
            block[1 + i, :, n0 + i : n0 + 3 * n1 : 3] = _functions(moments.dipole(exponent), 1, basis, number)
    return np.stack([to_pyscf(b, basis, number) for b in block], axis=1)


@dataclass(frozen=True)
class FrameFit:
    """Fit of one frame. coefficient: (N, width) irreps order; the rest are its diagnostics.

    electrons_error: e; dipole_error: e*bohr, what round-off leaves of both constraints; condition: of the unit-diagonal J.
    """

    coefficient: np.ndarray
    electrons_error: float
    dipole_error: float
    condition: float


@dataclass(frozen=True)
class Projection:
    """Integrals of one frame in PySCF order: coulomb and overlap (n, n), projection b (n,) of the deformation density.

    overlap_projection: (n,) the same in the overlap metric, for the design of a basis; None unless asked for.
    """

    coulomb: np.ndarray
    overlap: np.ndarray
    projection: np.ndarray
    overlap_projection: np.ndarray | None


def project(molecule: Molecule, matrix: np.ndarray, ao_basis: str, basis: Basis, overlap: bool = False) -> Projection:
    """Metric and projections of d = rho - rho_SAD; matrix: (nao, nao) density matrix in PySCF order.

    Raises DataError if the matrix is not in that AO basis.
    """
    mol = orbital_molecule(molecule, ao_basis, matrix)
    aux = pyscf_molecule(molecule, pyscf_basis(basis))
    atoms = pyscf_molecule(molecule, pyscf_free_atoms(basis))
    prior = free_atom_coefficients(basis, molecule.number)
    pair = mol + aux
    slices = (0, mol.nbas, 0, mol.nbas, mol.nbas, mol.nbas + aux.nbas)
    rows, columns = np.tril_indices(mol.nao)
    packed = matrix[rows, columns] * np.where(rows == columns, 1.0, 2.0)

    def projected(three: str, two: str) -> np.ndarray:
        integrals = pair.intor(three, aosym="s2ij", shls_slice=slices)
        return packed @ integrals - gto.intor_cross(two, aux, atoms) @ prior

    return Projection(
        coulomb=aux.intor("int2c2e"),
        overlap=aux.intor("int1e_ovlp"),
        projection=projected("int3c2e", "int2c2e"),
        overlap_projection=projected("int3c1e", "int1e_ovlp") if overlap else None,
    )


def fit(molecule: Molecule, integrals: Projection, dipole: np.ndarray, basis: Basis) -> FrameFit:
    """Solve the constrained fit. dipole: (3,) of the molecule, e*bohr, origin 0.

    Raises BasisError if the basis is linearly dependent at this geometry.
    """
    scale = 1.0 / np.sqrt(np.diag(integrals.coulomb))
    metric = integrals.coulomb * scale[:, None] * scale
    eigenvalue = np.linalg.eigvalsh(metric)
    condition = float(eigenvalue[-1] / eigenvalue[0]) if eigenvalue[0] > 0 else float("inf")
    if not condition <= MAX_CONDITION:
        raise BasisError(
            f"basis {basis.name} is linearly dependent at this geometry: condition number {condition:.1e}, expected at most "
            f"{MAX_CONDITION:.0e}; use a smaller basis or a larger ratio of exponents"
        )
    constraint = moment_constraints(basis, molecule)
    # rho_SAD carries the charge and dipole of the nuclei, so d has minus the molecule's charge and minus its dipole.
    target = np.concatenate([[-float(molecule.charge)], -np.asarray(dipole)])
    solved = np.linalg.solve(metric, scale[:, None] * np.column_stack([integrals.projection, constraint])) * scale[:, None]
    free, response = solved[:, 0], solved[:, 1:]
    multiplier = np.linalg.solve(constraint.T @ response, target - constraint.T @ free)
    coefficient = free + response @ multiplier
    error = constraint.T @ coefficient - target
    return FrameFit(
        to_irreps(coefficient, basis, molecule.number), abs(float(error[0])), float(np.abs(error[1:]).max()), condition
    )


def density_on_grid(molecule: Molecule, matrix: np.ndarray, ao_basis: str, level: int) -> DensityGrid:
    """SCF density on a Becke grid of PySCF's `level`. Points are rounded to float32 before the density is evaluated."""
    mol = orbital_molecule(molecule, ao_basis, matrix)
    grid = dft.gen_grid.Grids(mol)
    grid.level = level
    grid.build(with_non0tab=False)
    assert grid.weights is not None
    assert grid.coords is not None
    keep = grid.weights != 0
    point = grid.coords[keep].astype(np.float32)
    return DensityGrid(point, grid.weights[keep].astype(np.float32), scf_density(mol, matrix, point).astype(np.float32))


def scf_density(mol: gto.Mole, matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(G,) density of this density matrix at points (G, 3) bohr."""
    density = np.empty(len(point))
    for start in range(0, len(point), 20000):
        orbitals = mol.eval_gto("GTOval_sph", point[start : start + 20000].astype(np.float64))
        density[start : start + 20000] = np.einsum("gp,gp->g", orbitals @ matrix, orbitals)
    return density


def fitted_density(molecule: Molecule, coefficient: np.ndarray, basis: Basis, point: np.ndarray) -> np.ndarray:
    """rho_SAD + sum dc chi at points (G, 3) bohr, by PySCF's evaluator (independent of densnet.observables)."""
    aux = pyscf_molecule(molecule, pyscf_basis(basis))
    atoms = pyscf_molecule(molecule, pyscf_free_atoms(basis))
    c, prior = to_pyscf(coefficient, basis, molecule.number), free_atom_coefficients(basis, molecule.number)
    out = np.empty(len(point))
    for start in range(0, len(point), 20000):
        x = point[start : start + 20000].astype(np.float64)
        out[start : start + 20000] = aux.eval_gto("GTOval_sph", x) @ c + atoms.eval_gto("GTOval_sph", x) @ prior
    return out


def nmae_percent(density: np.ndarray, grid: DensityGrid, n_electrons: int) -> float:
    """100 integral |rho - rho_SCF| / N."""
    return 100.0 * float(np.abs(density - grid.density) @ grid.weight.astype(np.float64)) / n_electrons
