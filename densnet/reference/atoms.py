"""Free atoms: spherical Kohn-Sham densities as fixed sums of s Gaussians, the prior of the deformation density."""

from __future__ import annotations

import numpy as np
from ase.data import chemical_symbols
from pyscf import gto
from pyscf.scf import atom_ks

from densnet.basis.shells import FreeAtom
from densnet.errors import BasisError

RATIO = 1.45  # of the even-tempered s exponents: 1.6 leaves 0.02 % of the density unfitted, 1.45 leaves 0.005 %
OVERLAP_WEIGHT = 0.5  # hartree*bohr; mu of the fitting metric J + mu S, which also pins the density near the nucleus


def free_atom(number: int, xc: str, ao_basis: str) -> FreeAtom:
    """Spherically averaged, spin-restricted, fractionally occupied Kohn-Sham atom fitted by s Gaussians.

    The density of PySCF's `atom_ks` (its superposition-of-atoms guess) is fitted in the metric J + mu S with the exact
    integral Z. energy: of that atom, hartree. Raises BasisError if the AO basis lacks the element.
    """
    symbol = chemical_symbols[number]
    try:
        mol = gto.M(atom=f"{symbol} 0 0 0", basis=ao_basis, spin=number % 2, verbose=0)
    except (KeyError, RuntimeError) as error:
        raise BasisError(f"AO basis {ao_basis} has no functions for {symbol}; choose a level of theory that covers it") from error
    energy, _, orbitals, occupations = atom_ks.get_atm_nrks(mol, xc=xc)[symbol]
    matrix = np.einsum("pi,i,qi->pq", orbitals, occupations, orbitals)

    primitives = np.concatenate([mol.bas_exp(i) for i in range(mol.nbas)])
    low, high = 1.2 * primitives.min(), 2.5 * primitives.max()
    exponent = np.geomspace(high, low, int(np.ceil(np.log(high / low) / np.log(RATIO))) + 1)
    fit = gto.M(atom=f"{symbol} 0 0 0", basis={symbol: [[0, [a, 1.0]] for a in exponent]}, spin=number % 2, verbose=0)
    metric = fit.intor("int2c2e") + OVERLAP_WEIGHT * fit.intor("int1e_ovlp")
    pair = mol + fit
    shells = (0, mol.nbas, 0, mol.nbas, mol.nbas, mol.nbas + fit.nbas)
    projection = np.einsum("pqk,pq->k", pair.intor("int3c2e", shls_slice=shells), matrix)
    projection += OVERLAP_WEIGHT * np.einsum("pqk,pq->k", pair.intor("int3c1e", shls_slice=shells), matrix)
    charges = _charges(exponent)
    free = np.linalg.solve(metric, np.stack([projection, charges], 1))
    coefficient = free[:, 0] + free[:, 1] * (number - charges @ free[:, 0]) / (charges @ free[:, 1])
    return FreeAtom(tuple(exponent.tolist()), tuple(coefficient.tolist()), float(energy))


def _charges(exponent: np.ndarray) -> np.ndarray:
    """integral of normalised s Gaussians: (2 pi / a)^(3/4)."""
    return (2 * np.pi / exponent) ** 0.75
