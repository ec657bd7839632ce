"""What an evaluation says: errors frame by frame, and their summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from densnet.training.density_errors import SHELL_WIDTH, DensityErrors, Shares
from densnet.units import ANGSTROM_PER_BOHR, MEV_PER_ANGSTROM_PER_AU, MEV_PER_HARTREE, MILLIDEBYE_PER_AU

DISTANCES_A = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # angstrom, multiples of the shells of density_errors


@dataclass(frozen=True)
class ElementError:
    """Hirshfeld atoms of one element. atoms: how many, in all frames; electrons, error_e, fit_error_e: per atom, of rho_SCF,

    |rho - rho_SCF| and |rho_fit - rho_SCF|; error_percent: of the electrons of these atoms.
    """

    element: str
    atoms: int
    electrons: float
    error_e: float
    fit_error_e: float
    error_percent: float


@dataclass(frozen=True)
class DistanceError:
    """The points this far from their nearest nucleus (to_A None: and beyond), in percent of all electrons: the electrons

    there, |rho - rho_SCF| and |rho_fit - rho_SCF|. The errors sum to nmae_percent and fit_floor_percent.
    """

    from_A: float
    to_A: float | None
    electrons_percent: float
    error_percent: float
    fit_error_percent: float


@dataclass(frozen=True)
class TrajectoryError:
    """The test frames of one trajectory, by the name of their source up to the colon: errors as in Evaluation."""

    trajectory: str
    frames: int
    energy_mae_meV: float | None
    force_mae_meV_per_A: float | None
    dipole_mae_mD: float


@dataclass(frozen=True)
class Evaluation:
    """Errors over the given frames. Figures of the density are means over those `grid_frames` of them that carry a quadrature.

    quadrature: grid (Becke, as fine as the file has it) or samples (points drawn at random; used when no frame has a grid);
    nmae_percent: 100 integral |rho - rho_SCF| / N; nmae_worst_percent, worst_frame, worst_source: of the worst frame;
    fit_floor_percent: the same for the fitted coefficients; nmae_fit_percent: 100 integral |rho - rho_fit| / N;
    deformation_error_percent: 100 integral |rho - rho_SCF| / integral |rho_SCF - rho_SAD|;
    dipole_mae_mD: mean length of the error vector; dipole_component_mae_mD: mean absolute error of its components, as for
    forces (about half, and what some call the MAE of a dipole); quadrupole_mae_mD_A: mean Frobenius norm of the error of the
    second moment (not traceless) about the centre of nuclear charge, mD*angstrom; energy and force None without an energy
    network;
    rmsd_*: distance of the frames, grid or not, from the nearest of train_frames training frames (see densnet.data.similarity),
    None if none is of the same atoms; elements, distances: where the error is; trajectories: the errors by origin of the frames.
    """

    frames: int
    grid_frames: int
    quadrature: str
    nmae_percent: float
    nmae_worst_percent: float
    worst_frame: int
    worst_source: str
    fit_floor_percent: float
    nmae_fit_percent: float
    deformation_error_percent: float
    electrons_max_error: float
    dipole_mae_mD: float
    dipole_component_mae_mD: float
    quadrupole_mae_mD_A: float
    energy_mae_meV: float | None
    force_mae_meV_per_A: float | None
    train_frames: int
    rmsd_least_A: float | None
    rmsd_median_A: float | None
    elements: tuple[ElementError, ...]
    distances: tuple[DistanceError, ...]
    trajectories: tuple[TrajectoryError, ...]


@dataclass(frozen=True)
class FrameErrors:
    """One frame, atomic units. Pairs are (reference, model): dipole (2, 3), energy (2,), force (2, N, 3), the last two None

    without an energy network. electrons, quadrupole: errors, as in Evaluation; rmsd: NaN if there is none; quadrature, density:
    None if the frame has none.
    """

    frame: int
    source: str
    number: np.ndarray
    electrons: float
    dipole: np.ndarray
    quadrupole: float
    energy: np.ndarray | None
    force: np.ndarray | None
    rmsd: float
    quadrature: str | None
    density: DensityErrors | None

    @property
    def dipole_error(self) -> float:
        return float(np.linalg.norm(self.dipole[1] - self.dipole[0]))


def summarise(errors: Sequence[FrameErrors], train_frames: int = 0) -> Evaluation:
    """Means over frames, at least one of them with a density. train_frames: how many the RMSD was taken to."""
    pairs = [(e, e.density) for e in errors if e.density is not None]
    densities = [density for _, density in pairs]
    worst, worst_density = max(pairs, key=lambda pair: pair[1].nmae_percent)
    energy, force, dipole = _means(errors)
    rmsd = ANGSTROM_PER_BOHR * np.array([e.rmsd for e in errors if np.isfinite(e.rmsd)])
    return Evaluation(
        frames=len(errors),
        grid_frames=len(pairs),
        quadrature=str(worst.quadrature),
        nmae_percent=float(np.mean([d.nmae_percent for d in densities])),
        nmae_worst_percent=worst_density.nmae_percent,
        worst_frame=worst.frame,
        worst_source=worst.source,
        fit_floor_percent=float(np.mean([d.fit_floor_percent for d in densities])),
        nmae_fit_percent=float(np.mean([d.nmae_fit_percent for d in densities])),
        deformation_error_percent=float(np.mean([d.deformation_error_percent for d in densities])),
        electrons_max_error=max(e.electrons for e in errors),
        dipole_mae_mD=dipole,
        dipole_component_mae_mD=MILLIDEBYE_PER_AU * float(np.mean([abs(e.dipole[1] - e.dipole[0]) for e in errors])),
        quadrupole_mae_mD_A=MILLIDEBYE_PER_AU * ANGSTROM_PER_BOHR * float(np.mean([e.quadrupole for e in errors])),
        energy_mae_meV=energy,
        force_mae_meV_per_A=force,
        train_frames=train_frames,
        rmsd_least_A=float(rmsd.min()) if len(rmsd) else None,
        rmsd_median_A=float(np.median(rmsd)) if len(rmsd) else None,
        elements=_by_element(pairs),
        distances=_by_distance(densities),
        trajectories=_by_trajectory(errors),
    )


def _means(errors: Sequence[FrameErrors]) -> tuple[float | None, float | None, float]:
    """Energy, meV, and force components, meV/angstrom, both None without an energy network; dipole, mD."""
    dipole = MILLIDEBYE_PER_AU * float(np.mean([e.dipole_error for e in errors]))
    energies, forces = [e.energy for e in errors if e.energy is not None], [e.force for e in errors if e.force is not None]
    if not energies or not forces:
        return None, None, dipole
    energy = MEV_PER_HARTREE * float(np.mean([abs(e[1] - e[0]) for e in energies]))
    force = MEV_PER_ANGSTROM_PER_AU * float(np.concatenate([abs(f[1] - f[0]) for f in forces]).mean())
    return energy, force, dipole


def _by_trajectory(errors: Sequence[FrameErrors]) -> tuple[TrajectoryError, ...]:
    groups: dict[str, list[FrameErrors]] = {}
    for e in errors:
        groups.setdefault(e.source.split(":")[0], []).append(e)
    return tuple(TrajectoryError(name, len(own), *_means(own)) for name, own in sorted(groups.items()))


def _by_element(pairs: Sequence[tuple[FrameErrors, DensityErrors]]) -> tuple[ElementError, ...]:
    number = np.concatenate([e.number for e, _ in pairs])
    count, error, fit = (
        np.concatenate(parts) for parts in zip(*((d.atoms.electrons, d.atoms.error, d.atoms.fit_error) for _, d in pairs))
    )
    out = []
    for z in np.unique(number).tolist():
        own = number == z
        electrons, error_e, fit_error_e = (float(x[own].mean()) for x in (count, error, fit))
        percent = 100.0 * error_e / electrons
        out.append(ElementError(chemical_symbols[z], int(own.sum()), electrons, error_e, fit_error_e, percent))
    return tuple(out)


def mean_shells(densities: Sequence[DensityErrors]) -> Shares:
    """Shares by distance in percent of the electrons of a molecule, mean over molecules."""
    percent = [100.0 / d.n_electrons * np.stack([d.shells.error, d.shells.fit_error, d.shells.electrons]) for d in densities]
    error, fit_error, electrons = np.mean(percent, axis=0)
    return Shares(error, fit_error, electrons)


def _by_distance(densities: Sequence[DensityErrors]) -> tuple[DistanceError, ...]:
    shells = mean_shells(densities)
    first = [round(edge / (SHELL_WIDTH * ANGSTROM_PER_BOHR)) for edge in DISTANCES_A]
    out = []
    for low, high, start, end in zip(DISTANCES_A, (*DISTANCES_A[1:], None), first, (*first[1:], None)):
        part = slice(start, end)
        error, fit_error = float(shells.error[part].sum()), float(shells.fit_error[part].sum())
        out.append(DistanceError(low, high, float(shells.electrons[part].sum()), error, fit_error))
    return tuple(out)
