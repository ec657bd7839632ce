"""Quantum corrections: detailed balance, known limits, and Egelstaff's time axis against two closed forms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import j1

from densnet.errors import ConfigError
from densnet.spectra.correlation import Window, WindowKind, power_spectrum, transform_length
from densnet.spectra.infrared import Recipe, infrared_spectrum
from densnet.spectra.quantum_correction import QuantumCorrection, net_absorption, on_egelstaff_time_axis
from densnet.units import BOLTZMANN, CM1_PER_AU, FS_PER_AU

BALANCED = [q for q in QuantumCorrection if q is not QuantumCorrection.NONE]
X = np.array([1e-9, 0.03, 0.7, 3.0, 14.4, 40.0])


@pytest.mark.parametrize("correction", BALANCED)
def test_prefactors_obey_detailed_balance(correction):
    """I(-omega) = exp(-x) I(omega) with an even classical spectrum; the transform on Egelstaff's axis is even as well."""
    assert correction.factor(-X) / correction.factor(X) == pytest.approx(np.exp(-X), rel=1e-12)
    assert correction.factor(np.zeros(1)) == pytest.approx(1.0)


def test_no_correction_has_no_detailed_balance():
    assert QuantumCorrection.NONE.factor(-X) / QuantumCorrection.NONE.factor(X) == pytest.approx(1.0)


def test_prefactors_against_an_oscillator_of_quanta():
    """<x(0)x(t)> of a quantum oscillator has n + 1 at +omega, n at -omega; the classical one kT/omega for both (hbar = m = 1)."""
    n = 1.0 / np.expm1(X)
    assert QuantumCorrection.HARMONIC.factor(X) == pytest.approx((n + 1.0) * X, rel=1e-6)
    # The standard correction is exact for the symmetrised spectrum, (I(omega) + I(-omega))/2.
    assert QuantumCorrection.STANDARD.factor(X) * (2.0 * n + 1.0) / 2.0 == pytest.approx(n + 1.0, rel=1e-6)
    # Schofield's for that at complex time, which the quantum spectrum exp(-x/2) I(omega) is.
    assert QuantumCorrection.SCHOFIELD.factor(X) * np.exp(-X / 2.0) * (n + 1.0) == pytest.approx(n + 1.0, rel=1e-12)
    assert net_absorption(np.array([-2.0, 0.0, 2.0])) == pytest.approx([(np.e**2 - 1.0) / 2.0, 1.0, (1.0 - np.e**-2) / 2.0])


def transform(function: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, int]:
    """omega, power and length for an even function (L,) at lags 0, step, ... that vanishes at the end by itself."""
    flat = Window(WindowKind.GAUSSIAN, 1e-9)  # wide enough to be 1 everywhere
    omega, power = power_spectrum(function[:, None], step, flat, 2)
    return omega, power, transform_length(function.size, 2)


def test_egelstaff_is_exact_for_a_free_particle():
    """exp(-a t^2/2), the intermediate scattering function of a free particle, becomes exp(-a tau^2/2) exp(-a t^2/2)."""
    step, a, beta = 20.0, 1.0 / 500.0**2, 1600.0
    lag = np.arange(400) * step
    velocity = a * (1.0 - a * lag**2) * np.exp(-a * lag**2 / 2.0)  # -C''
    _, power, n_fft = transform(velocity, step)
    moved = on_egelstaff_time_axis(power, n_fft, step, beta)
    expected = np.exp(-a * (beta / 2.0) ** 2 / 2.0) * power
    assert moved == pytest.approx(expected, rel=1e-6, abs=1e-6 * power.max())


@pytest.mark.parametrize("step_fs", [0.5, 2.0])
@pytest.mark.parametrize("line", [300.0, 1500.0, 3700.0])
def test_egelstaff_of_a_vibration_has_a_line_and_a_background_of_bessel_functions(line, step_fs):
    """Frequency domain, with no time axis at all: with S(w0) = w0^2 I(w0) of the velocity and s = sqrt(w0^2 - w^2),

        S'(w) = S(w) - tau w^2 int_w^inf dw0 S(w0)/w0 J1(tau s)/s,

    because the transform of cos(w0 sqrt(t^2 + tau^2)) is pi delta(w -+ w0) - pi w0 tau J1(tau s)/s for abs(w) < w0.
    """
    step, beta = step_fs / FS_PER_AU, 1.0 / (BOLTZMANN * 300.0)
    tau, frequency = 0.5 * beta, line / CM1_PER_AU
    window = Window(WindowKind.GAUSSIAN, 40.0)
    lag = np.arange(window.n_lags(step)) * step
    omega, power = power_spectrum(np.cos(frequency * lag)[:, None], step, window, 4)
    moved = on_egelstaff_time_axis(power, transform_length(lag.size, 4), step, beta)[:, 0]
    expected = np.zeros_like(omega)
    for k in range(1, omega.size):
        above = omega[k:]
        s = np.sqrt(np.maximum(above**2 - omega[k] ** 2, 0.0))
        kernel = np.where(s > 0.0, j1(tau * s) / np.where(s > 0.0, s, 1.0), tau / 2.0)
        expected[k] = power[k, 0] - tau * omega[k] ** 2 * np.trapezoid(power[k:, 0] / above * kernel, above)
    seen = omega * CM1_PER_AU < 4500.0
    background = seen & (omega * CM1_PER_AU < line - 100.0)
    assert moved[seen] == pytest.approx(expected[seen], abs=2e-3 * power.max())
    if background.any() and line > 1000.0:
        depth = np.abs(expected[background]).max()
        assert moved[background] == pytest.approx(expected[background], abs=0.03 * depth)
        assert moved[background].min() < 0.0


def test_a_permanent_dipole_does_not_enter_egelstaffs_correction():
    step = 1.0 / FS_PER_AU
    recipe = Recipe.named("gaussian", 30.0, "egelstaff")
    time = np.arange(3000) * step
    dipole = np.zeros((time.size, 2, 3))
    dipole[:, :, 0] = 0.01 * np.cos(1500.0 / CM1_PER_AU * time[:, None] + [0.0, 1.5])
    one = infrared_spectrum(dipole, step, 300.0, recipe).epsilon
    other = infrared_spectrum(dipole + np.array([0.0, 0.0, 0.8]), step, 300.0, recipe).epsilon
    assert other == pytest.approx(one, abs=1e-8 * one.max())


def test_ratios_to_the_harmonic_correction_in_a_spectrum():
    """At the top of a line, from the second radiation constant: cm K."""
    step = 1.0 / FS_PER_AU
    time = np.arange(6000) * step
    dipole = np.zeros((time.size, 2, 3))
    dipole[:, :, 1] = 0.01 * np.cos(1000.0 / CM1_PER_AU * time[:, None] + [0.3, 2.0])
    made = {q: infrared_spectrum(dipole, step, 300.0, replace(Recipe.named("gaussian", 10.0), quantum_correction=q))
            for q in QuantumCorrection}  # fmt: skip
    top = int(np.argmax(made[QuantumCorrection.HARMONIC].epsilon))
    x = 1.438776877 * made[QuantumCorrection.HARMONIC].wavenumber_cm1[top] / 300.0
    ratio = {q: s.epsilon[top] / made[QuantumCorrection.HARMONIC].epsilon[top] for q, s in made.items()}
    assert ratio[QuantumCorrection.NONE] == pytest.approx(-np.expm1(-x) / x, rel=1e-6)
    assert ratio[QuantumCorrection.STANDARD] == pytest.approx(2.0 * np.tanh(x / 2.0) / x, rel=1e-6)
    assert ratio[QuantumCorrection.SCHOFIELD] == pytest.approx(2.0 * np.sinh(x / 2.0) / x, rel=1e-6)
    # The background under the line is broad and takes a per cent or two of its top.
    assert ratio[QuantumCorrection.EGELSTAFF] == pytest.approx(2.0 * np.sinh(x / 2.0) / x, rel=0.03)


def test_names():
    assert [QuantumCorrection(q.value) for q in QuantumCorrection] == list(QuantumCorrection)
    assert len({q.formula for q in QuantumCorrection}) == 5
    with pytest.raises(ConfigError, match="none, harmonic, standard, schofield, egelstaff"):
        QuantumCorrection("wigner")
