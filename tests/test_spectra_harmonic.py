"""Normal modes against closed forms, ASE, and themselves turned around; comparison of spectra."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses
from ase.vibrations import VibrationsData
from scipy.spatial.transform import Rotation

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.compare import LineShape, Matching, broaden, compare_modes, curve_similarity, pearson
from densnet.spectra.harmonic import KM_MOL_PER_AU, normal_modes
from densnet.units import (
    ANGSTROM_PER_BOHR,
    BOHR_SI,
    CM1_PER_AU,
    DEBYE_PER_AU,
    ELECTRON_MASS_PER_DALTON,
    EV_PER_HARTREE,
    HARTREE_SI,
)


def springs(position: np.ndarray, pairs: list[tuple[int, int, float]]) -> np.ndarray:
    """Hessian of bonds at rest, k/2 (|r_ij| - r0)^2: k times the outer product of the bond direction."""
    n = len(position)
    hessian = np.zeros((n, 3, n, 3))
    for i, j, k in pairs:
        u = (position[i] - position[j]) / np.linalg.norm(position[i] - position[j])
        block = k * np.outer(u, u)
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            hessian[a, :, b] += sign * block
    return hessian.reshape(3 * n, 3 * n)


def masses(number: list[int]) -> np.ndarray:
    return atomic_masses[number] * ELECTRON_MASS_PER_DALTON


WATER = np.array([[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]])
WATER_NUMBER = [8, 1, 1]
WATER_HESSIAN = springs(WATER, [(0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.15)])
WATER_CHARGES = np.array([-0.7, 0.35, 0.35])


def water(position=WATER, hessian=WATER_HESSIAN, charges=WATER_CHARGES):
    return normal_modes(WATER_NUMBER, masses(WATER_NUMBER), position, hessian, np.kron(charges[:, None], np.eye(3)))


def test_factor_of_the_intensity():
    unit = (1.0 / (DEBYE_PER_AU / ANGSTROM_PER_BOHR)) ** 2 / ELECTRON_MASS_PER_DALTON  # 1 (D/angstrom)^2/amu
    assert unit * KM_MOL_PER_AU == pytest.approx(42.2561, rel=2e-6)


def test_diatomic_in_closed_form():
    """omega = sqrt(k/mu), dmu/dQ = dmu/dr / sqrt(mu) in SI numbers of its own, one vibration, five rigid motions."""
    position = np.array([[0.1, -0.4, 0.3], [1.1, 0.9, 1.0]])
    mass = masses([1, 9])
    u = (position[1] - position[0]) / np.linalg.norm(position[1] - position[0])
    slope = 0.31  # e
    derivative = np.concatenate([-np.outer(u, u), np.outer(u, u)]) * slope
    modes = normal_modes([1, 9], mass, position, springs(position, [(0, 1, 0.62)]), derivative)
    amu = 1.66053906892e-27
    reduced = 1.0 / sum(1.0 / (atomic_masses[z] * amu) for z in (1, 9))
    k = 0.62 * HARTREE_SI / BOHR_SI**2
    assert modes.n_rigid == 5
    assert modes.frequency_cm1 == pytest.approx([np.sqrt(k / reduced) / (2 * np.pi * 2.99792458e10)], rel=1e-8)
    debye_per_angstrom = slope * 4.80320471  # e in D/angstrom
    assert modes.intensity_km_mol == pytest.approx([42.2561 * debye_per_angstrom**2 / (reduced / amu)], rel=1e-5)


def carbon_dioxide(axis: np.ndarray, bend: float = 0.02):
    """CO2 along an axis: stretches k, bend by the second difference of the perpendicular displacements."""
    n = axis / np.linalg.norm(axis)
    position = np.outer([-2.2, 0.0, 2.2], n)
    across = np.eye(3) - np.outer(n, n)
    second = np.array([1.0, -2.0, 1.0])
    hessian = springs(position, [(0, 1, 1.0), (1, 2, 1.0)]) + bend * np.kron(np.outer(second, second), across)
    charges = np.array([-0.5, 1.0, -0.5])
    return normal_modes([8, 6, 8], masses([8, 6, 8]), position, hessian, np.kron(charges[:, None], np.eye(3)))


@pytest.mark.parametrize("axis", [[0.0, 0.0, 1.0], [1.0, 2.0, -0.5]])
def test_linear_triatomic_in_closed_form(axis):
    modes = carbon_dioxide(np.array(axis))
    oxygen, carbon = masses([8, 6])
    symmetric, asymmetric = np.sqrt(1.0 / oxygen), np.sqrt(1.0 * (1 / oxygen + 2 / carbon))
    bend = np.sqrt(0.02 * (2 / oxygen + 4 / carbon))  # the mode is along M^-1 (1, -2, 1)
    assert modes.n_rigid == 5
    assert modes.frequency_cm1 / CM1_PER_AU == pytest.approx([bend, bend, symmetric, asymmetric], rel=1e-8)
    assert modes.intensity_km_mol[2] == pytest.approx(0.0, abs=1e-9)
    slope = (0.5 / oxygen**0.5) ** 2 * 2 + (1.0 / carbon**0.5) ** 2  # |M^-1/2 q|^2: q = (-1/2, 1, -1/2) is the mode itself
    assert modes.intensity_km_mol[[0, 1, 3]] == pytest.approx(np.full(3, slope * KM_MOL_PER_AU), rel=1e-8)


def test_nonlinear_molecule_against_ase():
    modes = water()
    atoms = Atoms(WATER_NUMBER, WATER * ANGSTROM_PER_BOHR)
    hessian = WATER_HESSIAN * EV_PER_HARTREE / ANGSTROM_PER_BOHR**2
    theirs = VibrationsData.from_2d(atoms, hessian).get_frequencies().real[6:]
    assert modes.n_rigid == 6
    assert modes.frequency_cm1 == pytest.approx(theirs, rel=1e-5)  # ASE has another CODATA year
    assert modes.vector.T @ modes.vector == pytest.approx(np.eye(3), abs=1e-12)
    # Modes carry no momentum and no angular momentum.
    flow = (np.sqrt(np.repeat(modes.mass, 3))[:, None] * modes.vector).reshape(3, 3, 3)
    assert flow.sum(axis=0) == pytest.approx(np.zeros((3, 3)), abs=1e-9)
    centred = WATER - modes.mass @ WATER / modes.mass.sum()
    assert np.cross(centred[:, None], flow.transpose(0, 2, 1)).sum(axis=0) == pytest.approx(np.zeros((3, 3)), abs=1e-9)


def test_rotation_and_translation_change_nothing():
    rotation = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    big = np.kron(np.eye(3), rotation)
    turned = normal_modes(
        WATER_NUMBER,
        masses(WATER_NUMBER),
        WATER @ rotation.T + [3.0, -7.0, 1.0],
        big @ WATER_HESSIAN @ big.T,
        big @ np.kron(WATER_CHARGES[:, None], np.eye(3)) @ rotation.T,
    )
    modes = water()
    assert turned.frequency_cm1 == pytest.approx(modes.frequency_cm1, rel=1e-9)
    assert turned.intensity_km_mol == pytest.approx(modes.intensity_km_mol, rel=1e-9)
    comparison = compare_modes(turned, modes)
    assert comparison.matching is Matching.OVERLAP
    assert comparison.match.tolist() == [0, 1, 2]
    assert comparison.pearson == pytest.approx(1.0, abs=1e-9)
    assert comparison.max_frequency_deviation_cm1 < 1e-5
    # A wrong rotation of the Hessian must show.
    wrong = water(hessian=big @ WATER_HESSIAN @ big.T)
    assert np.abs(wrong.frequency_cm1 - modes.frequency_cm1).max() > 50.0


def test_rigid_motion_does_not_leak_into_vibrations():
    """A charged molecule in a Hessian with translational and rotational curvature: both are projected away."""
    charges = WATER_CHARGES + 1.0 / 3.0
    clean = water(charges=charges)
    mass = np.repeat(masses(WATER_NUMBER), 3)
    shift = np.kron(np.ones(3), [0.0, 1.0, 0.0])
    spin = np.cross([1.0, 0.0, 0.0], WATER - masses(WATER_NUMBER) @ WATER / masses(WATER_NUMBER).sum()).ravel()
    dirty = WATER_HESSIAN + 1e-9 * np.outer(mass * shift, mass * shift) + 1e-9 * np.outer(mass * spin, mass * spin)
    assert water(hessian=dirty, charges=charges).frequency_cm1 == pytest.approx(clean.frequency_cm1, rel=1e-7)
    assert water(hessian=dirty, charges=charges).intensity_km_mol == pytest.approx(clean.intensity_km_mol, rel=1e-6)


def test_imaginary_modes_are_negative_and_flagged():
    modes = carbon_dioxide(np.array([0.0, 0.0, 1.0]), bend=-0.02)
    assert modes.imaginary.tolist() == [True, True, False, False]
    assert modes.frequency_cm1[:2] == pytest.approx(-carbon_dioxide(np.array([0.0, 0.0, 1.0])).frequency_cm1[:2], rel=1e-9)


def test_bad_harmonic_data():
    hessian, derivative = WATER_HESSIAN, np.zeros((9, 3))
    mass = masses(WATER_NUMBER)
    lopsided = hessian.copy()
    lopsided[0, 1] += 0.5
    for arguments, words in (
        (([8], mass[:1], WATER[:1], np.zeros((3, 3)), np.zeros((3, 3))), "no vibrations"),
        ((WATER_NUMBER, mass, WATER, hessian[:6], derivative), "hessian has shape"),
        ((WATER_NUMBER, mass, WATER, hessian, derivative.T), "dipole_derivative has shape"),
        ((WATER_NUMBER, -mass, WATER, hessian, derivative), "smallest mass"),
        ((WATER_NUMBER, mass, WATER, hessian * np.nan, derivative), "hessian holds NaN"),
        ((WATER_NUMBER, mass, WATER, lopsided, derivative), "transpose"),
    ):
        with pytest.raises(SpectrumError, match=words) as error:
            normal_modes(*arguments)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", list(LineShape))
def test_broadening_keeps_area_and_width(shape):
    grid = np.linspace(-40000.0, 43000.0, 830001)
    curve = broaden(np.array([1500.0]), np.array([70.0]), grid, 12.0, shape)
    assert np.trapezoid(curve, grid) == pytest.approx(70.0, rel=2e-4)
    above = grid[curve >= 0.5 * curve.max()]
    assert above[-1] - above[0] == pytest.approx(12.0, abs=0.21)


def test_matching_by_overlap_sees_through_a_crossing():
    """Two modes swap their order of frequency; matched by overlap each still finds itself."""
    stiff = springs(WATER, [(0, 1, 0.50), (0, 2, 0.50), (1, 2, 0.01)])
    reference = water(hessian=stiff)
    # Move the symmetric stretch above the antisymmetric one by hand: H = M^1/2 v lambda v^T M^1/2 with lambdas exchanged.
    value = (reference.frequency_cm1 / CM1_PER_AU) ** 2
    root = np.sqrt(np.repeat(reference.mass, 3))[:, None] * reference.vector
    crossed = water(hessian=(root * value[[0, 2, 1]]) @ root.T)
    comparison = compare_modes(crossed, reference)
    assert comparison.match.tolist() == [0, 2, 1]
    gap = reference.frequency_cm1[2] - reference.frequency_cm1[1]
    assert comparison.frequency_deviation_cm1 == pytest.approx([0.0, gap, -gap], abs=1e-4)
    assert comparison.max_intensity_deviation_km_mol < 1e-6
    assert comparison.max_intensity_relative < 1e-6


def test_deviations_and_similarity_of_a_scaled_model():
    reference = water()
    model = water(hessian=1.02**2 * WATER_HESSIAN, charges=1.1 * WATER_CHARGES)
    comparison = compare_modes(model, reference, fwhm_cm1=10.0)
    assert comparison.frequency_deviation_cm1 == pytest.approx(0.02 * reference.frequency_cm1, rel=1e-7)
    assert comparison.max_intensity_relative == pytest.approx(0.21, rel=1e-6)
    assert comparison.pearson < 0.5
    assert compare_modes(model, reference, fwhm_cm1=300.0).pearson > 0.8
    with pytest.raises(SpectrumError, match="same molecule"):
        compare_modes(carbon_dioxide(np.array([0.0, 0.0, 1.0])), reference)
    with pytest.raises(SpectrumError, match="line width"):
        compare_modes(model, reference, fwhm_cm1=0.0)


def test_curve_similarity_on_different_axes():
    a, b = np.linspace(400.0, 4000.0, 3601), np.linspace(0.0, 3500.0, 1201)
    sticks = (np.array([1000.0, 3000.0]), np.array([50.0, 20.0]))
    same = curve_similarity(a, broaden(*sticks, a, 40.0), b, 3.0 * broaden(*sticks, b, 40.0))
    assert same == pytest.approx(1.0, abs=1e-4)
    moved = curve_similarity(a, broaden(*sticks, a, 40.0), b, broaden(sticks[0] + 200.0, sticks[1], b, 40.0))
    assert moved < 0.2
    assert np.isnan(pearson(np.ones(5), np.arange(5.0)))
    with pytest.raises(SpectrumError, match="common range"):
        curve_similarity(a, a, a + 5000.0, a)
    with pytest.raises(ConfigError, match="lorentzian"):
        LineShape("voigt")
