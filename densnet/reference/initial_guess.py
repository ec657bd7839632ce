"""A predicted density as the start of an SCF: one Kohn-Sham step, from the density to orbitals to a density matrix.

    F = T + V_nuc + J[rho] + V_xc[rho],    F C = S C e,    D = 2 sum over the n/2 lowest orbitals C C^T

J_ij = sum_P (ij|P) c_P over the Gaussians of the density, free atoms included, is exact: three-centre integrals, with the
exponents that the density carries. V_xc is integrated on PySCF's grid from the density and its gradient in closed form. So F
is the Kohn-Sham matrix of the predicted density itself, and the error of D is of first order in that of the density.

Exact exchange needs orbitals, and a kinetic energy density too: neither is in a density. For a functional with either of them
the step is made with PBE instead, whose orbitals are those of a semilocal functional as good as any; the SCF that starts from D
uses the functional wanted, and so ends where it would have ended.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import chemical_symbols
from pyscf import dft, gto, lib
from pyscf.dft import libxc, numint

from densnet.basis.ordering import free_atom_coefficients, pyscf_free_atoms, to_pyscf
from densnet.basis.shells import Basis
from densnet.data.labels import Level
from densnet.errors import BasisError, StructureError
from densnet.observables.real_space import density_gradient_on_points
from densnet.reference.fitting import pyscf_molecule
from densnet.reference.kohn_sham import ScfSettings, check, mean_field, mole
from densnet.structures import Density, Molecule

SEMILOCAL = "pbe"  # in place of functionals that a density alone does not determine
FUNCTIONS_AT_ONCE = 64  # of the density, in three-centre integrals
POINTS_AT_ONCE = 8000


def density_functions(molecule: Molecule, density: Density, basis: Basis) -> tuple[gto.Mole, np.ndarray]:
    """The deformation as functions of PySCF with the exponents it carries, and their coefficients in PySCF's order, (n,).

    Raises BasisError for a density of another molecule or basis.
    """
    rows, slots = basis.rows(molecule.number), sum(basis.multiplicity)
    coefficient, exponent = (x.detach().to("cpu", torch.float64).numpy() for x in (density.coefficient, density.exponent))
    if coefficient.shape != (len(rows), basis.width) or exponent.shape != (len(rows), slots):
        raise BasisError(
            f"the density has coefficients {coefficient.shape} and exponents {exponent.shape}; expected "
            f"({len(rows)}, {basis.width}) and ({len(rows)}, {slots}) for basis {basis.name}; give that of this molecule alone"
        )
    degree = np.repeat(np.arange(len(basis.multiplicity)), basis.multiplicity)
    atoms, shells = [], {}
    for k, (z, row) in enumerate(zip(molecule.number, rows)):  # every atom is a kind of its own: exponents differ
        kind = f"{chemical_symbols[z]}{k}"
        exists = basis.slot_mask[row]
        atoms.append((kind, molecule.position[k].tolist()))
        shells[kind] = [[int(l), [float(a), 1.0]] for l, a in zip(degree[exists], exponent[k][exists])]
    spin = int(molecule.number.sum()) % 2
    mol = gto.M(atom=atoms, unit="Bohr", basis=shells, charge=0, spin=spin, verbose=0)
    return mol, to_pyscf(coefficient, basis, molecule.number)


def coulomb_matrix(molecule: Molecule, density: Density, basis: Basis, ao_basis: str) -> np.ndarray:
    """(nao, nao) J_ij = (ij|rho), hartree, of the whole density, in PySCF's order of the AO basis."""
    mol = pyscf_molecule(molecule, ao_basis)
    packed = np.zeros(mol.nao * (mol.nao + 1) // 2)
    free = pyscf_molecule(molecule, pyscf_free_atoms(basis)), free_atom_coefficients(basis, molecule.number)
    for functions, coefficient in (density_functions(molecule, density, basis), free):
        pair = mol + functions
        first = functions.ao_loc_nr()
        start = 0
        while start < functions.nbas:
            stop = max(start + 1, int(np.searchsorted(first, first[start] + FUNCTIONS_AT_ONCE, side="right")) - 1)
            block = (0, mol.nbas, 0, mol.nbas, mol.nbas + start, mol.nbas + stop)
            packed += pair.intor("int3c2e", aosym="s2ij", shls_slice=block) @ coefficient[first[start] : first[stop]]
            start = stop
    return lib.unpack_tril(packed)


def exchange_correlation_matrix(
    molecule: Molecule, density: Density, basis: Basis, ao_basis: str, xc: str, grid_level: int
) -> np.ndarray:
    """(nao, nao) V_xc of an LDA or GGA at this density, hartree, on PySCF's grid of that level.

    With v = d e_xc / d rho and w = 2 d e_xc / d |grad rho|^2 grad rho:  V_ij = integral v chi_i chi_j + w . grad (chi_i chi_j).
    A predicted density can be slightly negative in the tails; it counts as zero there.
    """
    mol = pyscf_molecule(molecule, ao_basis)
    grid = dft.gen_grid.Grids(mol)
    grid.level = grid_level
    grid.build(with_non0tab=False)
    assert grid.coords is not None
    assert grid.weights is not None
    integrator = numint.NumInt()
    gga = libxc.xc_type(xc) == "GGA"
    half = np.zeros((mol.nao, mol.nao))
    for start in range(0, len(grid.coords), POINTS_AT_ONCE):
        point, weight = (x[start : start + POINTS_AT_ONCE] for x in (grid.coords, grid.weights))
        value, gradient = density_gradient_on_points(molecule, density, basis, torch.as_tensor(point))
        rho = np.vstack([value.cpu().numpy(), gradient.cpu().numpy().T])
        rho[:, rho[0] < 0] = 0.0
        v = integrator.eval_xc_eff(xc, rho if gga else rho[:1], deriv=1, xctype="GGA" if gga else "LDA")[1] * weight
        orbital = mol.eval_gto("GTOval_sph_deriv1" if gga else "GTOval_sph", point)
        if gga:
            half += orbital[0].T @ (0.5 * v[0][:, None] * orbital[0] + np.einsum("xg,xgi->gi", v[1:4], orbital[1:4]))
        else:
            half += 0.5 * orbital.T @ (v[0][:, None] * orbital)
    return half + half.T


def step_functional(xc: str) -> str:
    """The functional of the step: xc itself, or PBE if xc has exact exchange, nonlocal correlation or is a meta-GGA."""
    determined = libxc.xc_type(xc) in ("LDA", "GGA") and not libxc.is_hybrid_xc(xc) and not libxc.is_nlc(xc)
    return xc if determined else SEMILOCAL


def initial_density_matrix(molecule: Molecule, density: Density, basis: Basis, level: Level) -> np.ndarray:
    """(nao, nao) closed-shell density matrix to start an SCF from: `mf.kernel(dm0=...)`, or compute_label(..., guess=...).

    density: of this molecule, predicted or fitted, any exponents; level: of the SCF (for hybrids and meta-GGAs see above).
    Raises StructureError for an odd number of electrons, ConfigError for an unknown functional or AO basis, BasisError for a
    density that does not fit.
    """
    check(molecule, level)
    xc = step_functional(level.xc)
    mol = pyscf_molecule(molecule, level.ao_basis)
    fock = mol.intor("int1e_kin") + mol.intor("int1e_nuc")
    fock += coulomb_matrix(molecule, density, basis, level.ao_basis)
    fock += exchange_correlation_matrix(molecule, density, basis, level.ao_basis, xc, level.grid_level)
    return _aufbau(mol, fock, molecule.n_electrons)


def _aufbau(mol: gto.Mole, fock: np.ndarray, electrons: int) -> np.ndarray:
    # Canonical orthogonalisation: diffuse bases of larger molecules are nearly linearly dependent.
    value, vector = np.linalg.eigh(mol.intor("int1e_ovlp"))
    keep = value > 1e-8
    x = vector[:, keep] / np.sqrt(value[keep])
    if x.shape[1] < electrons // 2:
        raise StructureError(f"{x.shape[1]} independent orbitals for {electrons} electrons; expected more; use a larger AO basis")
    orbital = x @ np.linalg.eigh(x.T @ fock @ x)[1][:, : electrons // 2]
    return 2 * orbital @ orbital.T


@dataclass(frozen=True)
class Convergence:
    """One SCF. iterations: Kohn-Sham matrices diagonalised until energy and gradient converged; first_error: energy of the

    start above the converged one, hartree; wall_s, processor_s: seconds of the SCF alone, the latter of all threads.
    """

    converged: bool
    iterations: int
    energy: float
    first_error: float
    wall_s: float
    processor_s: float


def converge(molecule: Molecule, level: Level, guess: str | np.ndarray, settings: ScfSettings | None = None) -> Convergence:
    """Run the SCF from a density matrix or from one of PySCF's own guesses (minao, atom, vsap, huckel, 1e, sap).

    PySCF's iteration and its convergence criteria (energy to conv_tol, gradient to its root), nothing of ours.
    """
    settings = settings or ScfSettings()
    lib.num_threads(settings.threads)
    mf = mean_field(mole(molecule, level, settings), level, settings)
    energies: list[float] = []
    mf.callback = lambda local: energies.append(float(local["last_hf_e"]))  # of the matrix that the cycle began with
    wall, processor = time.perf_counter(), time.process_time()
    mf.kernel(mf.get_init_guess(key=guess) if isinstance(guess, str) else guess)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Convergence(bool(mf.converged), int(mf.cycles), float(mf.e_tot), energies[0] - float(mf.e_tot), wall, processor)
