"""The infrared spectrum against signals whose answer is exact: harmonic oscillators in a canonical ensemble."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.bands import bands, integrate, peaks
from densnet.spectra.correlation import Window, WindowKind
from densnet.spectra.infrared import ErrorOrigin, QuantumCorrection, Recipe, infrared_spectrum
from densnet.units import (
    AVOGADRO,
    BOLTZMANN,
    CM1_PER_AU,
    ELECTRON_MASS_PER_DALTON,
    ELECTRON_MASS_SI,
    ELEMENTARY_CHARGE,
    FS_PER_AU,
    SPEED_OF_LIGHT,
    VACUUM_PERMITTIVITY,
)

KELVIN = 300.0
STEP = 0.5 / FS_PER_AU
GAUSSIAN = Recipe.named("gaussian", 10.0)


def sum_rule_km_mol(derivative: float) -> float:
    """N_A |dmu/dQ|^2 / (12 eps0 c^2) in SI, derivative in e per sqrt(electron mass)."""
    si = (derivative * ELEMENTARY_CHARGE) ** 2 / ELECTRON_MASS_SI
    return AVOGADRO * si / (12.0 * VACUUM_PERMITTIVITY * SPEED_OF_LIGHT**2) / 1e3


def oscillators(wavenumber, derivative, n_frames=12000, kelvin=KELVIN, step=STEP, energy=None, seed=3):
    """Dipole (S, R, 3) of independent modes Q(t) = sqrt(2 E)/w cos(w t + phase); derivative (modes, 3); energy (R, modes) / kT.

    Without `energy`, the canonical distribution in 256 equally likely slices of the exponential law of E, shuffled.
    """
    rng = np.random.default_rng(seed)
    n_modes = len(wavenumber)
    if energy is None:
        slices = -np.log(1.0 - (np.arange(64) + 0.5) / 64)
        energy = np.stack([rng.permutation(slices) for _ in range(n_modes)], axis=1)
    n_replicas = energy.shape[0]
    time = np.arange(n_frames) * step
    dipole = np.zeros((n_frames, n_replicas, 3)) + np.array([0.3, -0.8, 0.5])  # a permanent dipole must not matter
    for mode in range(n_modes):
        omega = wavenumber[mode] / CM1_PER_AU
        amplitude = np.sqrt(2.0 * energy[:, mode] * BOLTZMANN * kelvin) / omega
        phase = rng.uniform(0.0, 2.0 * np.pi, n_replicas)
        q = amplitude * np.cos(omega * time[:, None] + phase)
        dipole += q[:, :, None] * np.asarray(derivative[mode])
    return dipole


@pytest.mark.parametrize("kind", list(WindowKind))
@pytest.mark.parametrize("kelvin", [50.0, 300.0, 900.0])
def test_line_position_and_absolute_intensity_of_a_harmonic_oscillator(kind, kelvin):
    derivative = np.array([0.004, -0.002, 0.005])
    energy = np.ones((16, 1))  # the canonical mean, exactly: leaves no statistical error
    dipole = oscillators([1653.0], [derivative], kelvin=kelvin, energy=energy)
    spectrum = infrared_spectrum(dipole, STEP, kelvin, Recipe(Window(kind, 10.0)))
    area, _ = integrate(spectrum, 1500.0, 1800.0)
    assert area == pytest.approx(sum_rule_km_mol(np.linalg.norm(derivative)), rel=3e-3)
    assert peaks(spectrum) == pytest.approx([1653.0], abs=0.1)
    assert spectrum.wavenumber_cm1[0] == 0.0
    assert spectrum.wavenumber_cm1[-1] == pytest.approx(4500.0, abs=5.0)


def test_canonical_sample_obeys_the_sum_rule_and_its_band_covers_it():
    dipole = oscillators([1200.0, 3000.0], [[0.006, 0, 0], [0, 0.001, 0.002]])
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN)
    assert spectrum.error_origin is ErrorOrigin.REPLICAS
    for low, high, derivative in ((1100.0, 1300.0, 0.006), (2900.0, 3100.0, np.sqrt(5e-6))):
        area, error = integrate(spectrum, low, high)
        assert area == pytest.approx(sum_rule_km_mol(derivative), rel=0.012)
        assert error == pytest.approx(area / 8.0, rel=0.15)  # energies of variance (kT)^2 over 64 replicas


def test_error_of_the_mean_covers_the_truth():
    rng = np.random.default_rng(11)
    truth, hits = sum_rule_km_mol(0.006), 0
    for repetition in range(40):
        energy = rng.exponential(size=(32, 1))
        dipole = oscillators([900.0], [[0.0, 0.006, 0.0]], n_frames=5200, step=2 * STEP, energy=energy, seed=repetition)
        area, error = integrate(infrared_spectrum(dipole, 2 * STEP, KELVIN, GAUSSIAN), 800.0, 1000.0)
        hits += abs(area - truth) < 2.0 * error
    assert 34 <= hits <= 40
    # The band at the top of the line tells the same relative story as the integral.
    spectrum = infrared_spectrum(dipole, 2 * STEP, KELVIN, GAUSSIAN)
    top = int(np.argmax(spectrum.epsilon))
    assert spectrum.epsilon_error[top] / spectrum.epsilon[top] == pytest.approx(error / area, rel=0.1)


@pytest.mark.parametrize("along", [([1, 0, 0], [0, 1, 0]), ([1, 0, 0], [1, 0, 0])])
def test_line_ratio_of_31_survives_whatever_the_polarisation(along):
    weak, strong = 0.001 * np.array(along[0]), 0.001 * np.sqrt(31.0) * np.array(along[1])
    dipole = oscillators([1000.0, 2500.0], [weak, strong], energy=np.ones((16, 2)))
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN)
    ratio = integrate(spectrum, 2300.0, 2700.0)[0] / integrate(spectrum, 900.0, 1100.0)[0]
    assert ratio == pytest.approx(31.0, rel=5e-3)
    heights = [spectrum.epsilon[np.abs(spectrum.wavenumber_cm1 - w) < 30].max() for w in (1000.0, 2500.0)]
    assert heights[1] / heights[0] == pytest.approx(31.0, rel=0.02)


@pytest.mark.parametrize("femtoseconds", [0.5, 1.0, 2.0, 3.7])
def test_recording_interval_does_not_change_the_spectrum(femtoseconds):
    step = femtoseconds / FS_PER_AU
    dipole = oscillators([3700.0], [[0.0, 0.0, 0.003]], n_frames=int(8000 / femtoseconds), step=step, energy=np.ones((16, 1)))
    spectrum = infrared_spectrum(dipole, step, KELVIN, replace(GAUSSIAN, max_cm1=4400.0))
    assert integrate(spectrum, 3550.0, 3850.0)[0] == pytest.approx(sum_rule_km_mol(0.003), rel=3e-3)
    assert peaks(spectrum) == pytest.approx([3700.0], abs=0.1)


def test_units_of_the_columns_agree():
    spectrum = infrared_spectrum(oscillators([1653.0], [[0.005, 0, 0]]), STEP, KELVIN, GAUSSIAN)
    # 1 L/mol/cm is ln(10) 1e3 cm^3/(N_A cm) per molecule; km/mol is 1e5 cm/mol over cm^-1.
    cm2 = np.log(10.0) * 1e3 / AVOGADRO
    assert spectrum.cross_section * 1e4 == pytest.approx(spectrum.epsilon * cm2, rel=1e-12)
    assert spectrum.density_km_mol == pytest.approx(AVOGADRO * spectrum.cross_section * 1e4 / 1e5, rel=1e-12)


def test_quantum_corrections():
    dipole = oscillators([3000.0], [[0.005, 0, 0]])
    harmonic = infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN)
    none = infrared_spectrum(dipole, STEP, KELVIN, replace(GAUSSIAN, quantum_correction=QuantumCorrection.NONE))
    at = int(np.argmax(harmonic.epsilon))
    x = 1.438776877 * harmonic.wavenumber_cm1[at] / KELVIN  # second radiation constant, cm K
    assert none.epsilon[at] / harmonic.epsilon[at] == pytest.approx(-np.expm1(-x) / x, rel=1e-6)
    assert none.epsilon[1] / harmonic.epsilon[1] == pytest.approx(1.0, abs=5e-3)
    assert QuantumCorrection.HARMONIC.factor(np.array([0.0, 1e-9])) == pytest.approx([1.0, 1.0])
    with pytest.raises(ConfigError, match="harmonic"):
        QuantumCorrection("wigner")


def test_single_replica_takes_its_error_from_blocks_and_says_so():
    rng = np.random.default_rng(0)
    frames, keep, kick = 160000, np.exp(-STEP * 2e-5), None
    # A damped oscillator driven by noise (exact complex Ornstein-Uhlenbeck process) relaxes in about 1.2 ps.
    omega = 1000.0 / CM1_PER_AU
    kick = np.sqrt(1.0 - keep**2) * (rng.standard_normal(frames) + 1j * rng.standard_normal(frames))
    rotation = keep * np.exp(1j * omega * STEP)
    from scipy.signal import lfilter

    q = np.real(lfilter([1.0], [1.0, -rotation], kick)) * np.sqrt(BOLTZMANN * KELVIN) / omega
    dipole = np.zeros((frames, 1, 3))
    dipole[:, 0, 1] = 0.006 * q
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN)
    assert spectrum.error_origin is ErrorOrigin.BLOCKS
    assert spectrum.samples.shape[0] == 15  # 80 ps hold 15 supports of 5.0 ps
    area, error = integrate(spectrum, 600.0, 1400.0)
    assert 0.03 * area < error < 0.3 * area
    assert abs(area - sum_rule_km_mol(0.006)) < 3.0 * error
    short = infrared_spectrum(dipole[:12000], STEP, KELVIN, GAUSSIAN)
    assert short.error_origin is ErrorOrigin.NONE
    assert np.isnan(short.epsilon_error).all()
    assert np.isnan(integrate(short, 600.0, 1400.0)[1])
    assert peaks(short, prominence=0.5) == pytest.approx([1000.0], abs=20.0)


def test_peaks_and_bands():
    dipole = oscillators([500.0, 1600.0, 1680.0, 3700.0], 0.003 * np.eye(3)[[0, 1, 2, 0]], energy=np.ones((16, 4)))
    spectrum = infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN)
    assert peaks(spectrum) == pytest.approx([500.0, 1600.0, 1680.0, 3700.0], abs=0.2)
    assert peaks(spectrum, low_cm1=1000.0) == pytest.approx([1600.0, 1680.0, 3700.0], abs=0.2)
    found = bands(spectrum)
    assert len(found) == 4
    for (low, high), centre in zip(found, (500.0, 1600.0, 1680.0, 3700.0)):
        assert low < centre < high
        assert integrate(spectrum, low, high)[0] == pytest.approx(sum_rule_km_mol(0.003), rel=5e-3)
    still = infrared_spectrum(np.ones((12000, 2, 3)), STEP, KELVIN, GAUSSIAN)
    assert peaks(still).size == 0
    assert bands(still) == []


def test_intensity_against_a_textbook_unit():
    """1 (debye/angstrom)^2/amu is 42.2561 km/mol (Wilson, Decius, Cross; every quantum chemistry manual)."""
    derivative = 0.393430 / 1.889726 / np.sqrt(ELECTRON_MASS_PER_DALTON)
    dipole = oscillators([1500.0], [[0, derivative, 0]], energy=np.ones((16, 1)))
    assert integrate(infrared_spectrum(dipole, STEP, KELVIN, GAUSSIAN), 1400.0, 1600.0)[0] == pytest.approx(42.2561, rel=3e-3)


DIPOLE = np.zeros((12000, 2, 3))


@pytest.mark.parametrize(
    ("dipole", "step", "kelvin", "recipe", "words"),
    [
        (None, STEP, KELVIN, GAUSSIAN, "no dipoles"),
        (DIPOLE[:, 0], STEP, KELVIN, GAUSSIAN, r"shape \(12000, 3\)"),
        (DIPOLE, 0.0, KELVIN, GAUSSIAN, "time step is 0.0"),
        (DIPOLE, float("nan"), KELVIN, GAUSSIAN, "time step is nan"),
        (DIPOLE, STEP, -300.0, GAUSSIAN, "temperature is -300"),
        (DIPOLE[:5000], STEP, KELVIN, GAUSSIAN, r"lasts 2.5 ps; expected at least 5.01 ps .* ask for 20.1 cm\^-1"),
        (DIPOLE, 16 * STEP, KELVIN, GAUSSIAN, r"8 fs apart and show nothing above 2085 cm\^-1"),
        (np.where(np.arange(12000)[:, None, None] < 700, DIPOLE, np.nan), STEP, KELVIN, GAUSSIAN, "replica 0 .* frame 700"),
    ],
)
def test_bad_input_is_one_line(dipole, step, kelvin, recipe, words):
    with pytest.raises(SpectrumError, match=words) as error:
        infrared_spectrum(dipole, step, kelvin, recipe)
    assert "\n" not in str(error.value)


def test_suggested_resolution_and_length_are_enough():
    """What the error message of a short trajectory asks for is accepted."""
    short = DIPOLE[:5000]
    assert infrared_spectrum(short, STEP, KELVIN, Recipe.named("gaussian", 20.1)).wavenumber_cm1.size > 100
    assert infrared_spectrum(DIPOLE[:10021], STEP, KELVIN, GAUSSIAN).wavenumber_cm1.size > 100


def test_bad_settings_and_limits():
    for settings, words in (
        ({"resolution_cm1": 0.0}, "resolution"),
        ({"resolution_cm1": 10.0, "zero_padding": 0}, "zero padding"),
    ):
        with pytest.raises(SpectrumError, match=words):
            Recipe.named("hann", **settings)
    with pytest.raises(SpectrumError, match="highest wavenumber"):
        Recipe.named("hann", 10.0, max_cm1=-1.0)
    with pytest.raises(ConfigError, match="gaussian"):
        Recipe.named("han", 10.0)
    spectrum = infrared_spectrum(DIPOLE, STEP, KELVIN, GAUSSIAN)
    for low, high in ((2000.0, 1000.0), (-10.0, 100.0), (100.0, 9000.0)):
        with pytest.raises(SpectrumError, match="band limits"):
            integrate(spectrum, low, high)
