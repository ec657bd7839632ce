"""Power spectra of velocities: degrees of freedom, shares of elements, rigid motion; spectra of any coordinates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from densnet.errors import SpectrumError
from densnet.spectra.harmonic import NormalModes, normal_modes
from densnet.spectra.infrared import Recipe
from densnet.spectra.power_figure import PowerSummary, power_figure, write_power
from densnet.spectra.uncertainty import ErrorMethod, ErrorOrigin, Uncertainty
from densnet.spectra.vibrational_density import vibrational_density
from densnet.units import BOLTZMANN, CM1_PER_AU, ELECTRON_MASS_PER_DALTON, FS_PER_AU

STEP = 1.0 / FS_PER_AU
RECIPE = Recipe.named("gaussian", 20.0)
KELVIN = 300.0


def water() -> NormalModes:
    position = np.array([[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]])
    hessian = np.zeros((3, 3, 3, 3))
    for i, j, k in ((0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.15)):
        u = (position[i] - position[j]) / np.linalg.norm(position[i] - position[j])
        for a, b, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            hessian[a, :, b] += sign * k * np.outer(u, u)
    mass = np.array([15.999, 1.008, 1.008]) * ELECTRON_MASS_PER_DALTON
    return normal_modes(np.array([8, 1, 1]), mass, position, hessian.reshape(9, 9), np.zeros((9, 3)))


def motion(energy: np.ndarray, n_frames: int = 3200, seed: int = 0):
    """Exact motion of water in its modes, energy (R, 3) in kT, amplitudes made small: position, velocity (S, R, 3, 3)."""
    modes, rng = water(), np.random.default_rng(seed)
    omega = modes.frequency_cm1 / CM1_PER_AU
    phase = omega * STEP * np.arange(n_frames)[:, None, None] + rng.uniform(0.0, 2.0 * np.pi, energy.shape)
    # A thousandth of room temperature keeps the geometry, so that nothing but the modes is in the motion.
    amplitude = np.sqrt(2.0 * energy * BOLTZMANN * 1e-3 * KELVIN)
    root = np.sqrt(modes.mass)[:, None]
    q, p = amplitude / omega * np.cos(phase), -amplitude * np.sin(phase)
    spread = (*q.shape[:2], 3, 3)
    return modes.position + (q @ modes.vector.T).reshape(spread) / root, (p @ modes.vector.T).reshape(spread) / root


def found(position, velocity, recipe=RECIPE, **options):
    modes = water()
    parts = [(position[:, r : r + 2], velocity[:, r : r + 2]) for r in range(0, position.shape[1], 2)]
    return vibrational_density(modes.number, modes.mass, parts, position.shape[1], STEP, recipe, **options)


def test_every_vibration_is_one_degree_of_freedom_and_atoms_share_it_by_their_part_in_the_mode():
    modes = water()
    density = found(*motion(np.ones((6, 3))))
    assert density.integral == pytest.approx(3.0, rel=3e-3)
    assert density.degrees_of_freedom == 3
    assert density.temperature == pytest.approx(1e-3 * KELVIN, rel=1e-3)
    assert density.elements.tolist() == [1, 8]
    oxygen = (modes.vector[:3] ** 2).sum(axis=0)
    grid = density.wavenumber_cm1
    for index, line in enumerate(modes.frequency_cm1):
        near = np.abs(grid - line) < 45.0
        assert np.trapezoid(density.total[near], grid[near]) == pytest.approx(1.0, rel=0.01)
        assert np.trapezoid(density.element[1][near], grid[near]) == pytest.approx(oxygen[index], rel=0.01)
        assert grid[near][np.argmax(density.total[near])] == pytest.approx(line, abs=1.0)
    assert density.element.sum(axis=0) == pytest.approx(density.total, rel=1e-12)
    assert density.element_integral.sum() == pytest.approx(density.integral, rel=1e-12)


def test_units_of_mass_length_and_time_do_not_matter():
    position, velocity = motion(np.random.default_rng(1).exponential(size=(4, 3)))
    modes = water()
    one = found(position, velocity)
    other = vibrational_density(modes.number, 1822.9 * modes.mass, [(0.5 * position, 3.0 * velocity)], 4, STEP, RECIPE)
    assert other.total == pytest.approx(one.total, rel=1e-9, abs=1e-15)
    assert other.total_error == pytest.approx(one.total_error, rel=1e-9, abs=1e-15)


def test_rigid_motion_is_taken_out_or_adds_its_degrees_of_freedom():
    """Thermal noise in all 3N velocities: 9 degrees of freedom kept, 3 removed; of a turning, flying molecule the same 3."""
    modes, rng = water(), np.random.default_rng(0)
    shape = (1500, 30, 3, 3)
    position = np.broadcast_to(modes.position, shape) + 0.02 * rng.normal(size=shape)
    velocity = rng.normal(size=shape) * np.sqrt(BOLTZMANN * KELVIN / modes.mass)[:, None]
    wide = replace(Recipe.named("gaussian", 40.0), max_cm1=np.pi / STEP * CM1_PER_AU)  # noise reaches to the Nyquist wavenumber
    removed, kept = found(position, velocity, wide), found(position, velocity, wide, remove_rigid_motion=False)
    assert removed.integral == pytest.approx(3.0, rel=2e-3)
    assert kept.integral == pytest.approx(9.0, rel=0.02)
    assert (removed.degrees_of_freedom, kept.degrees_of_freedom) == (3, 9)
    assert kept.element_integral == pytest.approx([6.0, 3.0], rel=0.02)
    assert removed.temperature == pytest.approx(KELVIN, rel=0.02)
    spin, drift = rng.normal(size=(30, 3)) * 1e-4, rng.normal(size=(30, 3)) * 1e-3
    centre = np.einsum("a,srai->sri", modes.mass / modes.mass.sum(), position)[:, :, None]
    moving = velocity + drift[:, None] + np.cross(spin[:, None], position - centre)
    turn = Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix().T
    again = found(position @ turn + 7.0, moving @ turn, wide)
    assert again.total == pytest.approx(removed.total, rel=1e-6, abs=1e-9)
    # A run without rigid motion has none to keep.
    inner = motion(np.ones((4, 3)))
    assert found(*inner, remove_rigid_motion=False).integral == pytest.approx(3.0, rel=3e-3)


def test_the_error_band_covers_the_share_of_a_mode():
    """Energies differ from replica to replica; the mean over replicas of one mode is 1 in the ensemble."""
    modes, rng = water(), np.random.default_rng(3)
    line, recipe = modes.frequency_cm1[0], Recipe.named("gaussian", 60.0)
    rules = [Uncertainty(method, resamples=500) for method in ErrorMethod]
    hits = np.zeros(2)
    for repetition in range(100):
        density = found(*motion(rng.exponential(size=(16, 3)), 850, repetition), recipe)
        near = np.abs(density.wavenumber_cm1 - line) < 150.0
        shares = np.trapezoid(density.samples.sum(axis=1)[:, near], density.wavenumber_cm1[near], axis=1)
        # Against the temperature of the ensemble, not of the sample.
        shares = shares * density.temperature / (1e-3 * KELVIN)
        limits = [rule.interval(shares.mean(keepdims=True), shares[:, None]) for rule in rules]
        hits += [low[0] < 1.0 < high[0] for low, high in limits]
    # 92 expected (test_spectra_exact_signals measures it on thousands of samples), less three standard deviations.
    assert (hits >= 84).all()
    assert (hits < 99).all()


def test_one_replica_takes_its_error_from_blocks():
    position, velocity = motion(np.ones((1, 3)), 9000)
    density = found(position, velocity)
    assert density.error_origin is ErrorOrigin.BLOCKS
    assert density.samples.shape[0] == 3
    assert np.isfinite(density.total_error).all()
    assert density.integral == pytest.approx(3.0, rel=3e-3)
    short = found(position[:3000], velocity[:3000])
    assert short.error_origin is ErrorOrigin.NONE
    assert np.isnan(short.total_error).all()


def test_maximum_entropy_from_a_short_run():
    density = found(*motion(np.ones((4, 3)), 1500), Recipe.named("gaussian", 10.0, memory_fs=500.0))
    assert density.integral == pytest.approx(3.0, rel=0.01)
    for line in water().frequency_cm1:
        near = np.abs(density.wavenumber_cm1 - line) < 45.0
        assert np.trapezoid(density.total[near], density.wavenumber_cm1[near]) == pytest.approx(1.0, rel=0.03)


def test_bad_input():
    position, velocity = motion(np.ones((2, 3)), 3000)
    with pytest.raises(SpectrumError, match="all zero"):
        found(position, 0.0 * velocity)
    with pytest.raises(SpectrumError, match="1 atom has no vibrations"):
        vibrational_density(np.array([8]), np.array([29000.0]), [(position[:, :, :1], velocity[:, :, :1])], 2, STEP, RECIPE)


def test_files_and_figure(tmp_path):
    bootstrap = replace(RECIPE, uncertainty=Uncertainty(ErrorMethod.BOOTSTRAP, 0.9, 300, 17))
    density = found(*motion(np.random.default_rng(1).exponential(size=(6, 3))), bootstrap)
    write_power(tmp_path / "power.csv", density, "run.h5")
    lines = (tmp_path / "power.csv").read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    for words in (
        "degrees_of_freedom: 3 if thermal",
        "rigid_motion: removed",
        "bootstrap_seed: 17",
        "confidence: 0.9",
        "gaussian",
    ):
        assert any(words in line for line in header), words
    table = np.genfromtxt(lines[len(header) :], delimiter=",", names=True)
    assert table["total"] == pytest.approx(density.total, rel=1e-6, abs=1e-12)
    assert table["O"] + table["H"] == pytest.approx(density.total, rel=1e-6, abs=1e-10)
    assert (table["total_lower"] <= table["total_upper"]).all()
    assert PowerSummary.of(density).elements.keys() == {"H", "O"}
    names = [text.get_text() for text in power_figure(density, "water").legends[0].get_texts()]
    assert names == ["All atoms (3.0)", "90 % confidence (6 replicas, bootstrap)", "O (0.2)", "H (2.8)"]
