"""Infrared spectra of systems whose classical spectrum is known in closed form: rotors and a Morse oscillator; error bands."""

from __future__ import annotations

import numpy as np
import pytest

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.bands import area, integrate, peaks
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.spectra.uncertainty import ErrorMethod, ErrorOrigin, Uncertainty
from densnet.units import (
    AVOGADRO,
    BOHR_SI,
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
# km/mol for N_A <mudot^2>/(kT) / (12 eps0 c^2), the argument in e^2/electron mass.
SUM_RULE = AVOGADRO * ELEMENTARY_CHARGE**2 / ELECTRON_MASS_SI / (12.0 * VACUUM_PERMITTIVITY * SPEED_OF_LIGHT**2) / 1e3


def quantiles(count: int) -> np.ndarray:
    return (np.arange(count) + 0.5) / count


def test_a_dipole_that_turns_uniformly_has_one_line_of_known_area_and_width():
    """<mudot(0).mudot(t)> = mu^2 Omega^2 cos(Omega t): A = N_A/(12 eps0 c^2) 2 <mudot^2>/(2 kT)."""
    step, mu, line = 1.0 / FS_PER_AU, 0.7, 640.0
    omega = line / CM1_PER_AU
    phase = omega * np.arange(6000)[:, None] * step + np.array([0.0, 1.0, 4.0])
    dipole = mu * np.stack([np.cos(phase), np.sin(phase), 0.0 * phase], axis=-1)
    spectrum = infrared_spectrum(dipole, step, KELVIN, Recipe.named("gaussian", 10.0))
    found, _ = integrate(spectrum, 560.0, 720.0)
    assert found == pytest.approx(SUM_RULE * mu**2 * omega**2 / (BOLTZMANN * KELVIN), rel=1e-3)
    assert peaks(spectrum) == pytest.approx([line], abs=0.05)
    half = spectrum.epsilon >= 0.5 * spectrum.epsilon.max()
    assert np.ptp(spectrum.wavenumber_cm1[half]) == pytest.approx(10.0, abs=2.0 * spectrum.wavenumber_cm1[1])


def test_thermal_linear_rotors_give_the_classical_pure_rotational_spectrum():
    """sigma(nu) = N_A pi mu^2/(6 eps0 c kT) w^2 P(w), P(w) = (I w/kT) exp(-I w^2/2kT): the density of rotation frequencies.

    In SI; the whole band is N_A mu^2/(6 eps0 c^2 I), at any temperature.
    """
    mu, rotational = 0.43, 10.4  # e bohr; B in cm^-1, hydrogen chloride
    hc = 6.62607015e-34 * SPEED_OF_LIGHT
    inertia_si = 6.62607015e-34 / (8.0 * np.pi**2 * SPEED_OF_LIGHT * rotational * 100.0)
    inertia = inertia_si / (ELECTRON_MASS_SI * BOHR_SI**2)
    omega = np.sqrt(-2.0 * np.log(1.0 - quantiles(1500)) * BOLTZMANN * KELVIN / inertia)
    step, rng = 5.0 / FS_PER_AU, np.random.default_rng(0)
    phase = omega * step * np.arange(1400)[:, None] + rng.uniform(0.0, 2.0 * np.pi, omega.size)
    axes = np.linalg.qr(rng.normal(size=(omega.size, 3, 3)))[0]
    dipole = mu * (np.cos(phase)[..., None] * axes[:, 0] + np.sin(phase)[..., None] * axes[:, 1])
    spectrum = infrared_spectrum(dipole, step, KELVIN, Recipe.named("gaussian", 12.0, max_cm1=600.0))

    mu_si, kt = mu * ELEMENTARY_CHARGE * BOHR_SI, 1.380649e-23 * KELVIN

    def sigma_of(wavenumber: np.ndarray) -> np.ndarray:
        w = 2.0 * np.pi * SPEED_OF_LIGHT * 100.0 * np.abs(wavenumber)
        density = (inertia_si * w / kt) * np.exp(-inertia_si * w**2 / (2.0 * kt))
        return np.pi * mu_si**2 / (6.0 * VACUUM_PERMITTIVITY * SPEED_OF_LIGHT * kt) * w**2 * density

    # The window is a Gaussian of full width 12; in the far wing single rotors stand apart.
    shift = np.linspace(-25.0, 25.0, 201)
    weight = np.exp(-4.0 * np.log(2.0) * (shift / 12.0) ** 2)
    near = spectrum.wavenumber_cm1 < 240.0
    sigma = (sigma_of(spectrum.wavenumber_cm1[near][:, None] - shift) * weight).sum(axis=1) / weight.sum()
    assert spectrum.cross_section[near] == pytest.approx(sigma, abs=0.01 * sigma.max())
    whole = AVOGADRO * mu_si**2 / (6.0 * VACUUM_PERMITTIVITY * SPEED_OF_LIGHT**2 * inertia_si) / 1e3
    assert integrate(spectrum, 0.0, 599.0)[0] == pytest.approx(whole, rel=0.01)
    # The most intense wavenumber of nu^3 exp(-nu^2/2 s^2) is sqrt(3) s, s^2 = 2 B kT/hc.
    top = spectrum.wavenumber_cm1[np.argmax(spectrum.epsilon)]
    assert top == pytest.approx(np.sqrt(6.0 * rotational * kt / (hc * 100.0)), abs=6.0)


class Morse:
    """V = D (1 - exp(-a q))^2 for a reduced mass, in atomic units; roughly O-H at a high temperature, charge 0.3 e."""

    depth, width, mass, charge, kelvin = 0.17, 1.15, 0.948 * ELECTRON_MASS_PER_DALTON, 0.3, 2000.0

    @property
    def harmonic(self) -> float:
        return self.width * np.sqrt(2.0 * self.depth / self.mass)

    def energies(self, count: int) -> np.ndarray:
        """Equally likely slices of P(E) ~ exp(-E/kT)/w(E); the number of states between E and E + dE is dE/w(E)."""
        grid = np.linspace(0.0, 25.0 * BOLTZMANN * self.kelvin, 200_001)
        weight = np.exp(-grid / (BOLTZMANN * self.kelvin)) / self.frequency(grid)
        cumulated = np.concatenate([[0.0], np.cumsum(0.5 * (weight[1:] + weight[:-1]))])
        return np.interp(quantiles(count), cumulated / cumulated[-1], grid)

    def frequency(self, energy: np.ndarray) -> np.ndarray:
        return self.harmonic * np.sqrt(1.0 - energy / self.depth)

    def amplitude(self, energy: np.ndarray, order: int) -> np.ndarray:
        """Of cos(n w t) in q(t) = ln[(1 + sqrt(e) cos w t)/(1 - e)]/a, e = E/D.

        1 + sqrt(e) cos x = |1 + r exp(ix)|^2/(1 + r^2) with sqrt(e) = 2r/(1 + r^2), and ln(1 + z) = z - z^2/2 + ...
        """
        e = energy / self.depth
        r = (1.0 - np.sqrt(1.0 - e)) / np.sqrt(e)
        return 2.0 * r**order / (order * self.width)

    def motion(self, energy: np.ndarray, step: float, n_frames: int, inner: int) -> np.ndarray:
        """q (S, R) by velocity Verlet from the inner turning point, after a random part of a period."""
        late = np.random.default_rng(1).uniform(0.0, 1.0, energy.size) * 2.0 * np.pi / self.frequency(energy)
        q = np.log(1.0 / (1.0 + np.sqrt(energy / self.depth))) / self.width
        v, dt, frames = np.zeros_like(q), late / 64.0, []

        def force(x: np.ndarray) -> np.ndarray:
            y = np.exp(-self.width * x)
            return -2.0 * self.depth * self.width * (1.0 - y) * y

        f = force(q)
        for index in range(64 + n_frames * inner):
            if index == 64:
                dt = np.full_like(q, step / inner)
            if index >= 64 and (index - 64) % inner == 0:
                frames.append(q)
            v = v + 0.5 * dt * f / self.mass
            q = q + dt * v
            f = force(q)
            v = v + 0.5 * dt * f / self.mass
        return np.array(frames)


def test_a_morse_oscillator_gives_its_classical_fundamental_and_overtone():
    morse, step = Morse(), 1.0 / FS_PER_AU
    energy = morse.energies(256)
    dipole = np.zeros((2200, energy.size, 3))
    dipole[:, :, 2] = morse.charge * morse.motion(energy, step, len(dipole), 16)
    spectrum = infrared_spectrum(dipole, step, morse.kelvin, Recipe.named("gaussian", 25.0, max_cm1=9000.0))
    dense = morse.energies(20_000)
    grid = spectrum.wavenumber_cm1

    def lines(energies: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
        strength = 0.5 * (order * morse.frequency(energies) * morse.charge * morse.amplitude(energies, order)) ** 2
        return order * morse.frequency(energies) * CM1_PER_AU, strength * SUM_RULE / (BOLTZMANN * morse.kelvin)

    for order, (low, high) in ((1, (2600.0, 4400.0)), (2, (6000.0, 7400.0))):
        found = integrate(spectrum, low, high)[0]
        # The overtone is made by the hottest few of the replicas, so what they are matters more.
        assert found == pytest.approx(lines(energy, order)[1].mean(), rel=0.01)
        assert found == pytest.approx(lines(dense, order)[1].mean(), rel=(0.01, 0.04)[order - 1])
        # Mean position of the band, weighted by intensity: red of harmonic by the anharmonicity at this temperature.
        inside = (grid > low) & (grid < high)
        mean = np.average(grid[inside], weights=spectrum.epsilon[inside])
        expected = np.average(lines(energy, order)[0], weights=lines(energy, order)[1])
        assert mean == pytest.approx(expected, abs=3.0 * order)
        assert order * morse.harmonic * CM1_PER_AU - expected > 60.0
    # The whole curve of the fundamental: lines at w(E) under the window.
    position, strength = lines(energy, 1)
    inside = (grid > 3000.0) & (grid < 4200.0)
    sigma = 25.0 / np.sqrt(8.0 * np.log(2.0))
    shape = (strength * np.exp(-0.5 * ((grid[inside][:, None] - position) / sigma) ** 2)).mean(axis=1)
    curve = spectrum.epsilon[inside]
    assert curve / curve.max() == pytest.approx(shape / shape.max(), abs=0.02)


@pytest.mark.parametrize("method", [m.value for m in ErrorMethod])
def test_the_error_band_covers_the_truth_in_nine_of_ten_repetitions(method):
    """Oscillators with canonical energies, 16 replicas: band integrals and the top of the line, 150 repetitions."""
    rng, step, omega, slope = np.random.default_rng(5), 4.0 / FS_PER_AU, 900.0 / CM1_PER_AU, 0.006
    recipe = Recipe.named("gaussian", 60.0, max_cm1=1500.0, error=method, bootstrap_resamples=1000)
    time = np.arange(260)[:, None] * step
    truth, top, hits, hits_at_top = SUM_RULE * slope**2, None, 0, 0

    def spectrum_of(energy):
        phase = rng.uniform(0.0, 2.0 * np.pi, energy.size)
        dipole = np.zeros((len(time), energy.size, 3))
        dipole[:, :, 1] = slope * np.sqrt(2.0 * energy * BOLTZMANN * KELVIN) / omega * np.cos(omega * time + phase)
        return infrared_spectrum(dipole, step, KELVIN, recipe)

    exact = spectrum_of(np.ones(400))
    top = int(np.argmax(exact.epsilon))
    for _ in range(150):
        spectrum = spectrum_of(rng.exponential(size=16))
        found = area(spectrum, 700.0, 1100.0)
        hits += found.lower < truth < found.upper
        lower, upper = spectrum.interval
        hits_at_top += lower[top] < exact.epsilon[top] < upper[top]
    assert 0.9 <= hits / 150 < 0.985  # a band that is far too wide covers always
    assert 0.9 <= hits_at_top / 150 < 0.985


@pytest.mark.parametrize("method", list(ErrorMethod))
@pytest.mark.parametrize(("count", "least"), [(8, 0.88), (16, 0.91), (32, 0.92)])
def test_coverage_of_means_of_canonical_energies(method, count, least):
    """4000 sets of exponentially distributed samples with mean 1; 95 % wanted, the skew costs a few."""
    samples = np.random.default_rng(1).exponential(size=(count, 4000))
    lower, upper = Uncertainty(method, resamples=1000).interval(samples.mean(axis=0), samples)
    assert least < ((lower < 1.0) & (upper > 1.0)).mean() < 0.955


def test_bootstrap_repeats_itself_and_agrees_with_the_standard_error():
    samples = np.random.default_rng(2).exponential(size=(24, 7))
    bootstrap, plain = Uncertainty(ErrorMethod.BOOTSTRAP, seed=3, resamples=20_000), Uncertainty()
    assert np.array_equal(bootstrap.error(samples), Uncertainty(ErrorMethod.BOOTSTRAP, seed=3, resamples=20_000).error(samples))
    assert not np.array_equal(
        bootstrap.error(samples), Uncertainty(ErrorMethod.BOOTSTRAP, seed=4, resamples=20_000).error(samples)
    )
    assert bootstrap.error(samples) == pytest.approx(samples.std(axis=0, ddof=1) / np.sqrt(24), rel=0.03)
    assert plain.error(samples) == pytest.approx(samples.std(axis=0, ddof=1) / np.sqrt(24), rel=1e-12)
    mean = samples.mean(axis=0)
    lower, upper = bootstrap.interval(mean, samples)
    # Samples skewed to the right: the interval reaches further up than down.
    assert ((upper - mean) > (mean - lower)).mean() > 0.7
    # Independent of the library: direct resampling of one column.
    rng = np.random.default_rng(0)
    direct = samples[rng.integers(0, 24, size=(20_000, 24)), 0].mean(axis=1)
    student = 2.0686576  # 97.5 % of Student's t with 23 degrees of freedom
    from math import erf

    level = 0.5 * (1.0 + erf(-np.sqrt(24 / 23) * student / np.sqrt(2.0)))
    assert [lower[0], upper[0]] == pytest.approx(np.quantile(direct, [level, 1.0 - level]), abs=0.02)
    one = samples[:1]
    assert np.isnan(bootstrap.error(one)).all()
    assert np.isnan(bootstrap.interval(one[0], one)).all()


def test_bad_uncertainty_settings_are_one_line():
    for settings, words in (({"confidence": 1.2}, "confidence is 1.2"), ({"resamples": 10}, "10 bootstrap resamples")):
        with pytest.raises(SpectrumError, match=words):
            Uncertainty(**settings)
    with pytest.raises(ConfigError, match="standard_error, bootstrap"):
        Recipe.named("hann", 10.0, error="jackknife")


def modes(lines, slopes, n_frames, step, n_replicas=8, seed=0):
    rng = np.random.default_rng(seed)
    omega = np.array(lines) / CM1_PER_AU
    phase = omega * step * np.arange(n_frames)[:, None, None] + rng.uniform(0.0, 2.0 * np.pi, (n_replicas, omega.size))
    return (np.sqrt(2.0 * BOLTZMANN * KELVIN) / omega * np.cos(phase)) @ np.array(slopes) + [0.1, 0.9, -0.4]


LINES = [500.0, 1600.0, 1660.0, 3000.0]
SLOPES = [[0.004, -0.002, 0.005], [0.001, 0.002, 0.0], [0.003, 0.0, 0.001], [0.0, 0.004, 0.001]]
LIMITS = [(400.0, 600.0), (1500.0, 1630.0), (1630.0, 1760.0), (2900.0, 3100.0)]


@pytest.mark.parametrize(("femtoseconds", "n_frames"), [(0.5, 4000), (2.0, 1500), (3.0, 4000)])
def test_maximum_entropy_is_absolute_also_where_the_trajectory_is_too_short_for_the_window(femtoseconds, n_frames):
    step = femtoseconds / FS_PER_AU
    dipole = modes(LINES, SLOPES, n_frames, step)
    recipe = Recipe.named("gaussian", 10.0, memory_fs=500.0)
    spectrum = infrared_spectrum(dipole, step, KELVIN, recipe)
    assert peaks(spectrum, prominence=0.01) == pytest.approx(LINES, abs=1.0)
    for (low, high), slope in zip(LIMITS, SLOPES):
        assert integrate(spectrum, low, high)[0] == pytest.approx(SUM_RULE * np.sum(np.square(slope)), rel=0.03)
    if femtoseconds == 3.0:
        fourier = infrared_spectrum(dipole, step, KELVIN, Recipe.named("gaussian", 10.0))
        for low, high in LIMITS:
            assert integrate(spectrum, low, high)[0] == pytest.approx(integrate(fourier, low, high)[0], rel=0.02)
    else:
        with pytest.raises(SpectrumError, match="expected at least"):
            infrared_spectrum(dipole, step, KELVIN, Recipe.named("gaussian", 10.0))
    assert np.array_equal(spectrum.epsilon, infrared_spectrum(dipole, step, KELVIN, recipe).epsilon)


def test_maximum_entropy_of_a_damped_oscillator_has_the_width_of_the_damping():
    """<v(0)v(t)> = exp(-g t) cos(w t): a Lorentzian of full width 2 g, here 40 cm^-1, convolved with a window of 5."""
    from scipy.signal import lfilter

    rng, step, damping, omega = np.random.default_rng(0), 2.0 / FS_PER_AU, 20.0 / CM1_PER_AU, 1000.0 / CM1_PER_AU
    keep, frames = np.exp(-damping * step), 4000
    kick = np.sqrt(1.0 - keep**2) * (rng.standard_normal((frames, 32)) + 1j * rng.standard_normal((frames, 32)))
    q = lfilter([1.0], [1.0, -keep * np.exp(1j * omega * step)], kick, axis=0).real[500:] * np.sqrt(BOLTZMANN * KELVIN) / omega
    dipole = np.zeros((*q.shape, 3))
    dipole[:, :, 0] = 0.006 * q
    spectrum = infrared_spectrum(dipole, step, KELVIN, Recipe.named("gaussian", 5.0, memory_fs=100.0))
    assert integrate(spectrum, 500.0, 1500.0)[0] == pytest.approx(0.97 * SUM_RULE * 0.006**2, rel=0.06)
    half = spectrum.wavenumber_cm1[spectrum.epsilon > 0.5 * spectrum.epsilon.max()]
    assert np.ptp(half) == pytest.approx(42.0, abs=6.0)
    assert spectrum.wavenumber_cm1[np.argmax(spectrum.epsilon)] == pytest.approx(1000.0, abs=4.0)


def test_maximum_entropy_of_one_replica_and_of_nothing():
    step = 2.0 / FS_PER_AU
    recipe = Recipe.named("gaussian", 10.0, memory_fs=500.0)
    one = infrared_spectrum(modes(LINES, SLOPES, 2000, step, 1), step, KELVIN, recipe)
    assert one.error_origin is ErrorOrigin.BLOCKS
    assert one.samples.shape[0] == 3  # 4 ps hold 3 pieces of twice the memory, 1 ps, and a step
    still = infrared_spectrum(np.ones((2000, 2, 3)), step, KELVIN, recipe)
    assert (still.epsilon == 0.0).all()
    with pytest.raises(SpectrumError, match=r"twice the memory .* lower memory_fs"):
        infrared_spectrum(modes(LINES, SLOPES, 400, step), step, KELVIN, recipe)
    with pytest.raises(SpectrumError, match="memory"):
        Recipe.named("gaussian", 10.0, memory_fs=-1.0)
