"""The harmonic reference: Kohn-Sham geometry optimisation, then Hessian and dipole derivatives by central differences.

Every calculation is stored as soon as it is finished; a repeated call replays the stored ones and computes the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase.data import atomic_masses
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from densnet.data.harmonic import HarmonicData
from densnet.data.labels import Label, Level
from densnet.errors import ConfigError, StructureError
from densnet.reference.kohn_sham import PROGRAM, NoLabel, ScfSettings
from densnet.reference.pipeline import LabelTask, Workers, compute_and_store, compute_labels, open_spool, stored
from densnet.structures import Molecule
from densnet.units import CM1_PER_AU, ELECTRON_MASS_PER_DALTON

LARGEST_MOVE = 0.3  # bohr; of one atom in one step of the optimisation
SOFTEST = 0.02  # hartree/bohr^2; softer directions of the starting Hessian are stiffened to this
SADDLE = 50.0 / CM1_PER_AU  # imaginary frequencies below this are within the noise of soft torsions


@dataclass(frozen=True)
class HarmonicSettings:
    """Atomic units. fmax: largest force on an atom at the stationary point; step: of the central differences;

    conv_tol: hartree, tighter than for labels, because differences of gradients magnify the noise of the SCF.
    """

    fmax: float = 2e-5
    step: float = 0.01
    conv_tol: float = 1e-11
    max_steps: int = 200

    def __post_init__(self) -> None:
        if min(self.fmax, self.step, self.conv_tol, self.max_steps) <= 0 or self.step > 0.1:
            raise ConfigError(
                f"harmonic settings are fmax {self.fmax}, step {self.step}; expected positive values, step up to 0.1 bohr"
            )


def compute_harmonic(
    start: Molecule, level: Level, scf: ScfSettings, settings: HarmonicSettings, spool: Path, workers: Workers
) -> HarmonicData:
    """The stationary point nearest to `start`, its Hessian (symmetrised) and dipole derivatives.

    Raises StructureError if an SCF fails, the optimisation does not converge or ends at a saddle point; ConfigError if the
    spool folder belongs to other settings.
    """
    tight = replace(level, conv_tol=min(level.conv_tol, settings.conv_tol))
    point, label = optimise(start, tight, scf, settings, spool / "optimisation", workers)
    flat = point.position.ravel()
    shifts = settings.step * np.eye(flat.size)
    displaced = [point.moved((flat + sign * shift).reshape(-1, 3)) for shift in shifts for sign in (1, -1)]
    results = compute_labels(displaced, tight, scf, spool / "displacements", workers, "harmonic", retry=True)
    gradients, dipoles = [], []
    for k, result in enumerate(results):
        if isinstance(result, NoLabel):
            raise StructureError(
                f"displacement {k} of the harmonic reference has no label ({result.reason}); change the level of theory"
            )
        gradients.append(-result.force.ravel())
        dipoles.append(result.dipole)
    hessian = (np.array(gradients[0::2]) - np.array(gradients[1::2])) / (2 * settings.step)
    derivative = (np.array(dipoles[0::2]) - np.array(dipoles[1::2])) / (2 * settings.step)
    data = HarmonicData(
        number=point.number,
        mass=atomic_masses[point.number] * ELECTRON_MASS_PER_DALTON,
        position=point.position,
        charge=point.charge,
        energy=label.energy,
        dipole=label.dipole,
        hessian=0.5 * (hessian + hessian.T),
        dipole_derivative=derivative,
        provenance=(
            f"{PROGRAM} {tight.xc}/{tight.ao_basis}, auxbasis {tight.auxbasis if tight.density_fit else 'none'}, "
            f"grid {tight.grid_level}, dispersion {tight.dispersion}, conv_tol {tight.conv_tol:g}; "
            f"largest force {_largest(label.force):.1e} hartree/bohr; central differences of {settings.step:g} bohr; "
            f"largest asymmetry {np.abs(hessian - hessian.T).max():.1e} hartree/bohr^2"
        ),
    )
    lowest = lowest_curvature(data)
    if lowest < -(SADDLE**2):
        raise StructureError(
            f"the stationary point is a saddle (frequency {np.sqrt(-lowest) * CM1_PER_AU:.0f}i cm^-1); expected a minimum; "
            "start from a less symmetric geometry"
        )
    return data


def optimise(
    start: Molecule, level: Level, scf: ScfSettings, settings: HarmonicSettings, spool: Path, workers: Workers
) -> tuple[Molecule, Label]:
    """Quasi-Newton (BFGS) descent on the Kohn-Sham energy from a GFN2-xTB Hessian; (stationary point, its label).

    BFGS update of the Hessian: J. Nocedal and S. Wright, Numerical Optimization (2006), eq. 6.19. Overall translation and
    rotation are projected out of the gradient, where they are noise of the integration grid.
    Raises as compute_harmonic does.
    """
    open_spool(spool, level, [start])
    molecule, hessian = start, xtb_hessian(start)
    previous: tuple[np.ndarray, np.ndarray] | None = None
    largest = np.inf
    for k in range(settings.max_steps):
        path = spool / f"{k:06d}.npz"
        if not isinstance(stored(path), Label):
            list(workers.run(compute_and_store, [LabelTask(molecule, level, scf, path)], None, "optimisation step"))
        label = stored(path)
        if not isinstance(label, Label):
            reason = label.reason if label else f"{path} vanished"
            raise StructureError(f"optimisation step {k} has no label ({reason}); change the level of theory or the geometry")
        position = molecule.position.ravel()
        project = vibrations_projector(molecule.position)
        gradient = -project @ label.force.ravel()
        largest = _largest(gradient)
        print(f"optimisation step {k}: energy {label.energy:.8f} hartree, largest force {largest:.1e} hartree/bohr", flush=True)
        if largest < settings.fmax:
            return molecule, label
        if previous is not None:
            s, y = position - previous[0], gradient - previous[1]
            if s @ y > 1e-3 * (s @ hessian @ s):  # else the update would lose positive definiteness
                u = hessian @ s
                hessian = hessian + np.outer(y, y) / (y @ s) - np.outer(u, u) / (s @ u)
        previous = position, gradient
        move = -project @ np.linalg.solve(hessian, gradient)
        move *= min(1.0, LARGEST_MOVE / _largest(move))
        molecule = molecule.moved((position + move).reshape(-1, 3))
    raise StructureError(
        f"the optimisation still has a force of {largest:.1e} hartree/bohr after {settings.max_steps} steps; expected less than "
        f"{settings.fmax:g}; raise fmax or max_steps, or give a better geometry"
    )


def _largest(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector.reshape(-1, 3), axis=1).max())


def xtb_hessian(molecule: Molecule, step: float = 0.01) -> np.ndarray:
    """(3N, 3N) hartree/bohr^2, positive definite: GFN2-xTB second derivatives with |eigenvalues| of at least SOFTEST."""
    try:
        xtb = Calculator("GFN2-xTB", molecule.number, molecule.position, charge=float(molecule.charge), uhf=0)
        xtb.set("verbosity", 0)
        rows = []
        for shift in step * np.eye(molecule.position.size):
            sides = []
            for sign in (1, -1):
                xtb.update(molecule.position + sign * shift.reshape(-1, 3))
                sides.append(xtb.singlepoint().get("gradient").ravel())
            rows.append((sides[0] - sides[1]) / (2 * step))
    except TBLiteRuntimeError as error:
        raise StructureError(
            f"GFN2-xTB cannot treat the geometry ({' '.join(str(error).split())}); expected a sound one"
        ) from error
    value, vector = np.linalg.eigh(0.5 * (np.array(rows) + np.array(rows).T))
    return (vector * np.maximum(np.abs(value), SOFTEST)) @ vector.T


def vibrations_projector(position: np.ndarray, mass: np.ndarray | None = None) -> np.ndarray:
    """(3N, 3N) projector onto what is neither translation nor rotation; in mass-weighted coordinates if mass (N,) is given."""
    weight = np.ones(position.shape[0]) if mass is None else np.sqrt(mass)
    centred = position - (weight**2) @ position / (weight**2).sum()
    shifts = [np.tile(axis, (position.shape[0], 1)) for axis in np.eye(3)]
    turns = [np.cross(axis, centred) for axis in np.eye(3)]
    rigid = np.array([(weight[:, None] * motion).ravel() for motion in shifts + turns]).T
    u, s, _ = np.linalg.svd(rigid, full_matrices=False)
    u = u[:, s > 1e-6 * s[0]]  # a linear molecule has two rotations, an atom none
    return np.eye(position.size) - u @ u.T


def lowest_curvature(data: HarmonicData) -> float:
    """Lowest eigenvalue (squared angular frequency, atomic units) of the mass-weighted Hessian among the vibrations.

    Zero if nothing is lower than the projected-out translations and rotations.
    """
    root = np.sqrt(np.repeat(data.mass, 3))
    project = vibrations_projector(data.position, data.mass)
    return float(np.linalg.eigvalsh(project @ (data.hessian / np.outer(root, root)) @ project)[0])
