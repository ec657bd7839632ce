"""Normal modes and double-harmonic infrared intensities from a Hessian and dipole derivatives.

| formula | variable |
|---|---|
| F = M^(-1/2) H M^(-1/2), H = d2E/dx dx | weighted |
| D, translations and rotations in mass-weighted coordinates (Eckart conditions) | rigid |
| B, orthonormal basis of the complement of D | basis |
| B^T F B L = L lambda, omega = sqrt(lambda) | eigenvalue |
| mode vectors B L, dQ = vector . M^(1/2) dx | NormalModes.vector |
| A = N_A/(12 eps0 c^2) sum_a (dmu_a/dQ)^2 | NormalModes.intensity_km_mol |

Source: E. B. Wilson, J. C. Decius, P. C. Cross, Molecular Vibrations, McGraw-Hill 1955, chapters 2 and 7; J. W. Ochterski,
Vibrational Analysis in Gaussian, 1999 (the projection).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from densnet.errors import SpectrumError
from densnet.units import (
    AVOGADRO,
    CM1_PER_AU,
    ELECTRON_MASS_SI,
    ELEMENTARY_CHARGE,
    SPEED_OF_LIGHT,
    VACUUM_PERMITTIVITY,
)

# km/mol in one e^2/m_e: N_A/(12 eps0 c^2) in SI gives m/mol.
KM_MOL_PER_AU = AVOGADRO * ELEMENTARY_CHARGE**2 / ELECTRON_MASS_SI / (12.0 * VACUUM_PERMITTIVITY * SPEED_OF_LIGHT**2) * 1e-3
LINEAR = 1e-3  # a molecule is linear if the root of its smallest moment of inertia is below this fraction of the largest
ASYMMETRY = 1e-2  # a matrix less symmetric than this, relative to its largest element, is no Hessian


class HarmonicSource(Protocol):
    """What normal modes are made from; densnet.data.harmonic.HarmonicData is one."""

    @property
    def number(self) -> np.ndarray: ...
    @property
    def mass(self) -> np.ndarray: ...
    @property
    def position(self) -> np.ndarray: ...
    @property
    def hessian(self) -> np.ndarray: ...
    @property
    def dipole_derivative(self) -> np.ndarray: ...


@dataclass(frozen=True)
class NormalModes:
    """Vibrations of a molecule, translations and rotations removed.

    number: (N,); mass: (N,) electron masses; position: (N, 3) bohr; frequency_cm1: (n_vib,) ascending, an imaginary frequency
    as its negative modulus; intensity_km_mol: (n_vib,); vector: (3N, n_vib) orthonormal, mass-weighted;
    dipole_derivative: (n_vib, 3) dmu/dQ, e per sqrt(electron mass); n_rigid: 6, or 5 for a linear molecule.
    """

    number: np.ndarray
    mass: np.ndarray
    position: np.ndarray
    frequency_cm1: np.ndarray
    intensity_km_mol: np.ndarray
    vector: np.ndarray
    dipole_derivative: np.ndarray
    n_rigid: int

    @property
    def imaginary(self) -> np.ndarray:
        """(n_vib,) True where the geometry is not a minimum along the mode."""
        return self.frequency_cm1 < 0.0

    @property
    def per_coordinate(self) -> np.ndarray:
        """(n_vib, N, 3) dx/dQ, one over the root of electron masses: mode vectors divided by the root of the masses."""
        return (self.vector / np.repeat(np.sqrt(self.mass), 3)[:, None]).T.reshape(-1, self.mass.size, 3)

    @property
    def displacement(self) -> np.ndarray:
        """(n_vib, N, 3) Cartesian displacements of each mode, normalised to one."""
        cartesian = self.per_coordinate
        return cartesian / np.linalg.norm(cartesian, axis=(1, 2), keepdims=True)

    @property
    def reduced_mass(self) -> np.ndarray:
        """(n_vib,) electron masses, for the normalised Cartesian displacement as coordinate (the convention of Gaussian)."""
        return 1.0 / (self.per_coordinate**2).sum(axis=(1, 2))

    @property
    def force_constant(self) -> np.ndarray:
        """(n_vib,) hartree/bohr^2 along the normalised Cartesian displacement; negative for imaginary modes."""
        return self.reduced_mass * np.sign(self.frequency_cm1) * (self.frequency_cm1 / CM1_PER_AU) ** 2

    @property
    def share(self) -> np.ndarray:
        """(n_vib, N) share of every atom in the kinetic energy of the mode."""
        return (self.vector.T.reshape(-1, self.mass.size, 3) ** 2).sum(axis=2)

    @property
    def linear(self) -> bool:
        return self.n_rigid == 5


def normal_modes(
    number: np.ndarray, mass: np.ndarray, position: np.ndarray, hessian: np.ndarray, dipole_derivative: np.ndarray
) -> NormalModes:
    """Vibrational frequencies, infrared intensities and mode vectors.

    number: (N,); mass: (N,) electron masses; position: (N, 3) bohr; hessian: (3N, 3N) hartree/bohr^2;
    dipole_derivative: (3N, 3) e, row 3A+i is dmu/dx_Ai. Any orientation and origin.
    Raises SpectrumError: fewer than two atoms, wrong shapes, NaN, masses not positive, a Hessian far from symmetric.
    """
    number, mass, position = np.asarray(number), np.asarray(mass, dtype=np.float64), np.asarray(position, dtype=np.float64)
    hessian = np.asarray(hessian, dtype=np.float64)
    dipole_derivative = np.asarray(dipole_derivative, dtype=np.float64)
    _check(number, mass, position, hessian, dipole_derivative)

    root = np.repeat(np.sqrt(mass), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    basis, n_rigid = _vibrational_basis(mass, position)
    eigenvalue, inner = np.linalg.eigh(basis.T @ weighted @ basis)
    vector = basis @ inner
    dmu_dq = vector.T @ (dipole_derivative / root[:, None])
    return NormalModes(
        number=number,
        mass=mass,
        position=position,
        frequency_cm1=np.sign(eigenvalue) * np.sqrt(np.abs(eigenvalue)) * CM1_PER_AU,
        intensity_km_mol=(dmu_dq**2).sum(axis=1) * KM_MOL_PER_AU,
        vector=vector,
        dipole_derivative=dmu_dq,
        n_rigid=n_rigid,
    )


def normal_modes_of(data: HarmonicSource) -> NormalModes:
    """`normal_modes` of harmonic data read from a file or computed from a model."""
    return normal_modes(data.number, data.mass, data.position, data.hessian, data.dipole_derivative)


def _vibrational_basis(mass: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, int]:
    """Orthonormal (3N, 3N - n_rigid) basis orthogonal to translations and infinitesimal rotations, and n_rigid."""
    centred = position - mass @ position / mass.sum()
    weight = np.sqrt(mass)
    translation = np.einsum("a,ik->aik", weight, np.eye(3)).reshape(-1, 3)
    # Column k is sqrt(m_A) e_k x r_A: the rotation about axis k. Its singular values are the square roots of the
    # principal moments of inertia, so a linear molecule shows one that vanishes.
    rotation = np.stack([weight[:, None] * np.cross(axis, centred) for axis in np.eye(3)], axis=-1).reshape(-1, 3)
    left, inertia, _ = np.linalg.svd(rotation, full_matrices=False)
    rotation = left[:, inertia > LINEAR * inertia[0]]
    rigid = np.concatenate([translation / np.linalg.norm(translation, axis=0), rotation], axis=1)
    n_rigid = rigid.shape[1]
    return np.linalg.svd(rigid, full_matrices=True)[0][:, n_rigid:], n_rigid


def _check(
    number: np.ndarray, mass: np.ndarray, position: np.ndarray, hessian: np.ndarray, dipole_derivative: np.ndarray
) -> None:
    n = number.size
    if n < 2:
        raise SpectrumError(f"{n} atom has no vibrations; expected a molecule of at least two; choose another molecule")
    expected = {"mass": (mass, (n,)), "position": (position, (n, 3)), "hessian": (hessian, (3 * n, 3 * n))}
    expected["dipole_derivative"] = (dipole_derivative, (3 * n, 3))
    for name, (value, shape) in expected.items():
        if value.shape != shape:
            raise SpectrumError(f"{name} has shape {value.shape}; expected {shape} for {n} atoms; check the harmonic data")
        if not np.isfinite(value).all():
            raise SpectrumError(f"{name} holds NaN or infinity; expected finite atomic units; recompute the harmonic data")
    if mass.min() <= 0.0:
        raise SpectrumError(f"smallest mass is {mass.min():g}; expected positive electron masses; check the harmonic data")
    asymmetry, largest = np.abs(hessian - hessian.T).max(), np.abs(hessian).max()
    if asymmetry > ASYMMETRY * largest:
        raise SpectrumError(
            f"hessian differs from its transpose by {asymmetry:.2g} of at most {largest:.2g}; expected a symmetric matrix; "
            "recompute it with tighter settings"
        )
