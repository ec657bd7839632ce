"""One Kohn-Sham calculation: molecule -> energy, force, dipole, second moment, density matrix, or why there is none."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyscf
from ase.data import chemical_symbols
from pyscf import dft, gto, lib
from pyscf.dft import libxc
from pyscf.gto.basis import load_ecp
from pyscf.scf.dispersion import parse_dft

from densnet.data.labels import PYSCF_AUXBASIS, Label, Level, pack
from densnet.errors import ConfigError, StructureError
from densnet.structures import Molecule

PROGRAM = f"pyscf {pyscf.__version__}"
DISPERSION = ("none", "d3bj", "d3zero", "d4")


@dataclass(frozen=True)
class ScfSettings:
    """What may change the cost of a label but not its value. memory: megabytes per worker; threads: per worker."""

    max_cycle: int = 100
    memory: int = 3000
    threads: int = 1


@dataclass(frozen=True)
class NoLabel:
    """A calculation that gave no label, and why (one line)."""

    reason: str


def check(molecule: Molecule, level: Level) -> None:
    """Find out in a moment whether this level of theory can treat this molecule.

    Raises StructureError for an electron count that closed shells cannot hold, ConfigError for an unknown functional, basis,
    grid or dispersion correction, and for a basis that hides core electrons in an effective core potential.
    """
    mole(molecule, level, ScfSettings())
    try:
        xc, _, hidden = parse_dft(level.xc)
        libxc.parse_xc(xc)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"functional {level.xc} is unknown to {PROGRAM}; expected a libxc name such as pbe or b3lyp") from error
    if hidden:
        raise ConfigError(
            f"functional {level.xc} carries a dispersion correction; expected it apart: xc={xc} dispersion={hidden}"
        )
    if not 0 <= level.grid_level <= 9:
        raise ConfigError(f"grid_level is {level.grid_level}; expected 0..9")
    if not 0 < level.conv_tol < 1e-4:
        raise ConfigError(f"conv_tol is {level.conv_tol} hartree; expected more than 0 and less than 1e-4")
    if level.dispersion not in DISPERSION:
        raise ConfigError(f"dispersion is {level.dispersion}; expected one of {', '.join(DISPERSION)}")
    if level.dispersion != "none" and importlib.util.find_spec("pyscf.dispersion") is None:
        raise ConfigError(f"dispersion {level.dispersion} needs a package that is missing; run: pip install pyscf-dispersion")


def mole(molecule: Molecule, level: Level, settings: ScfSettings) -> gto.Mole:
    """The molecule as PySCF takes it. Raises StructureError for an odd number of electrons, ConfigError for missing functions."""
    n = molecule.n_electrons
    if n <= 0 or n % 2:
        raise StructureError(
            f"the molecule has {n} electrons at charge {molecule.charge:+d}; expected an even number for closed-shell Kohn-Sham; "
            "set the charge, or choose another molecule: radicals cannot be computed"
        )
    symbols = [chemical_symbols[z] for z in molecule.number]
    for symbol in set(symbols):
        for basis in (level.ao_basis, level.auxbasis):
            try:
                if basis != PYSCF_AUXBASIS:
                    with warnings.catch_warnings(action="ignore"):  # PySCF advertises a package before it raises
                        gto.basis.load(basis, symbol)
            except (KeyError, RuntimeError) as error:
                raise ConfigError(
                    f"basis {basis} has no functions for {symbol}; expected a level of theory that covers it"
                ) from error
        try:
            hidden = bool(load_ecp(level.ao_basis, symbol))
        except (KeyError, RuntimeError):
            hidden = False
        if hidden:
            raise ConfigError(f"AO basis {level.ao_basis} replaces core electrons of {symbol}; expected an all-electron basis")
    atoms = list(zip(symbols, molecule.position.tolist()))
    return gto.M(
        atom=atoms, unit="Bohr", basis=level.ao_basis, charge=molecule.charge, spin=0, verbose=0, max_memory=settings.memory
    )


def mean_field(mol: gto.Mole, level: Level, settings: ScfSettings) -> Any:
    """The restricted Kohn-Sham object of this level of theory, not yet run."""
    mf: Any = dft.RKS(mol, xc=level.xc)
    if level.density_fit:
        mf = mf.density_fit(auxbasis=None if level.auxbasis == PYSCF_AUXBASIS else level.auxbasis)
    mf.grids.level = level.grid_level
    mf.conv_tol = level.conv_tol
    mf.max_cycle = settings.max_cycle
    mf.chkfile = None  # else every killed run leaves a file in the temporary folder
    if level.dispersion != "none":
        mf.disp = level.dispersion
    return mf


def compute_label(
    molecule: Molecule, level: Level, settings: ScfSettings | None = None, guess: np.ndarray | None = None
) -> Label | NoLabel:
    """Restricted Kohn-Sham with PySCF; moments at origin 0; a second-order solver takes over if the first does not converge.

    guess: (nao, nao) density matrix to start from, e.g. of a geometry nearby; PySCF's own if None.
    The force is PySCF's plain gradient, without the response of the grid: its sum over atoms is the grid noise.
    Raises StructureError and ConfigError as `check` does; every other failure is the NoLabel's reason.
    """
    settings = settings or ScfSettings()
    lib.num_threads(settings.threads)
    mol = mole(molecule, level, settings)
    mf = mean_field(mol, level, settings)
    try:
        mf.kernel(guess)
        if not mf.converged:
            first = mf.e_tot
            mf = mf.newton()
            mf.max_cycle = settings.max_cycle
            mf.kernel(mf.make_rdm1())
            if not mf.converged:
                return NoLabel(
                    f"SCF not converged to {level.conv_tol:g} hartree in {settings.max_cycle} cycles ({first:.6f} hartree), "
                    f"nor by a second-order solver ({mf.e_tot:.6f} hartree)"
                )
            mf = mf.undo_newton()
        gradient = np.asarray(mf.nuc_grad_method().kernel())
    except (np.linalg.LinAlgError, ArithmeticError, MemoryError) as error:
        return NoLabel(f"SCF stopped: {type(error).__name__}: {' '.join(str(error).split())}")

    matrix = np.asarray(mf.make_rdm1())
    charge = molecule.number.astype(np.float64)
    with mol.with_common_orig((0.0, 0.0, 0.0)):
        first_moment = np.einsum("xpq,pq->x", mol.intor("int1e_r"), matrix)
        second_moment = np.einsum("xpq,pq->x", mol.intor("int1e_rr"), matrix).reshape(3, 3)
    label = Label(
        energy=float(mf.e_tot),
        force=-gradient,
        dipole=charge @ molecule.position - first_moment,
        quadrupole=np.einsum("a,ax,ay->xy", charge, molecule.position, molecule.position) - second_moment,
        density_matrix=pack(matrix),
    )
    values = np.concatenate([[label.energy], gradient.ravel(), label.dipole, label.quadrupole.ravel(), label.density_matrix])
    return label if np.isfinite(values).all() else NoLabel("SCF converged to values that are not finite")
