"""Correlation functions, windows and power spectra against direct sums and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from densnet.errors import SpectrumError
from densnet.spectra import correlation
from densnet.spectra.correlation import (
    Window,
    WindowKind,
    autocorrelation,
    derivative,
    derivative_correction,
    power_spectrum,
)
from densnet.units import CM1_PER_AU


@pytest.mark.parametrize("workspace", [1 << 28, 1])
def test_autocorrelation_is_the_direct_sum(monkeypatch, workspace):
    monkeypatch.setattr(correlation, "FFT_WORKSPACE", workspace)
    series = np.random.default_rng(0).normal(size=(50, 3, 3)) + 0.7
    found = autocorrelation(series, 50)
    for lag in (0, 1, 17, 49):
        direct = (series[: 50 - lag] * series[lag:]).sum(axis=2).mean(axis=0)
        assert found[lag] == pytest.approx(direct, rel=1e-10, abs=1e-12)
    with pytest.raises(SpectrumError, match="51 lags"):
        autocorrelation(series, 51)


@pytest.mark.parametrize("kind", list(WindowKind))
@pytest.mark.parametrize("resolution", [4.0, 25.0])
def test_window_starts_at_one_ends_at_zero_and_has_the_stated_width(kind, resolution):
    window = Window(kind, resolution)
    lag = np.linspace(0.0, 1.2 * window.support, 6001)
    values = window.values(lag)
    assert values[0] == pytest.approx(1.0, abs=1e-15)
    assert (np.diff(values) <= 1e-12).all()
    assert values[lag < window.support].min() < 1e-3
    assert (values[lag >= window.support] == 0.0).all()
    # Line shape by quadrature: half of the maximum at half the resolution.
    angular = np.array([0.0, 0.5 * resolution]) / CM1_PER_AU
    shape = [np.trapezoid(values * np.cos(w * lag), lag) for w in angular]
    assert shape[1] / shape[0] == pytest.approx(0.5, abs=2e-3)


def test_power_spectrum_keeps_the_zero_lag_value_for_every_window_and_padding():
    series = np.random.default_rng(1).normal(size=(4000, 2, 3)).cumsum(axis=0)
    function = autocorrelation(series, 1000)
    for kind in WindowKind:
        for padding in (1, 4):
            omega, power = power_spectrum(function, 2.5, Window(kind, 150.0), padding)
            # Both signs of omega: every point but the first, and Nyquist if it is on the grid, counts twice.
            weight = np.full(omega.size, 2.0)
            weight[0] = 1.0
            if omega[-1] == pytest.approx(np.pi / 2.5):
                weight[-1] = 1.0
            assert (weight @ power) * omega[1] / (2.0 * np.pi) == pytest.approx(function[0], rel=1e-10)


def test_power_spectrum_is_the_fourier_integral():
    step, damping, frequency = 1.0, 2e-3, 0.05
    lag = np.arange(6000) * step
    function = (np.exp(-damping * lag) * np.cos(frequency * lag))[:, None]
    omega, power = power_spectrum(function, step, Window(WindowKind.HANN, 400.0))
    window = Window(WindowKind.HANN, 400.0).values(lag)
    for k in (0, 7, int(np.argmax(power)), 500):
        integrand = window * function[:, 0] * np.cos(omega[k] * lag)
        assert power[k, 0] == pytest.approx(2.0 * np.trapezoid(integrand, lag), rel=1e-9)


@pytest.mark.parametrize("angle", [0.01, 0.5, 1.5, 3.0])
def test_derivative_with_its_correction_is_exact_at_any_frequency(angle):
    """Mean square of d/dt cos(omega t) is omega^2/2; angle = omega dt reaches nearly Nyquist."""
    step = 3.0
    omega = angle / step
    phase = np.linspace(0.0, 2.0 * np.pi, 9)[:-1]
    series = 5.0 + np.cos(omega * np.arange(200)[:, None] * step + phase)[:, :, None]
    mean_square = (derivative(series, step) ** 2).mean()
    assert mean_square * derivative_correction(omega, step) == pytest.approx(0.5 * omega**2, rel=1e-10)
    assert derivative_correction(0.0, step) == 1.0
