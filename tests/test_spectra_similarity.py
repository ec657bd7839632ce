"""Similarity figures against closed forms, the scale factor, matched peaks, shares of bands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from densnet.errors import SpectrumError
from densnet.spectra.experiment import ExperimentalSpectrum
from densnet.spectra.infrared import ErrorOrigin, Recipe, Spectrum
from densnet.spectra.peak_matching import NamedRange, Peaks, band_shares, match_peaks, measured_peaks
from densnet.spectra.similarity import Comparing, information_similarity, spectral_similarity

GRID = np.arange(0.0, 4501.0, 0.5)
UNSCALED = Comparing(scale_bounds=(1.0, 1.0))
BANDS = ((880.0, 20.0, 0.2), (1060.0, 25.0, 1.0), (1390.0, 30.0, 0.4), (2950.0, 40.0, 0.9), (3660.0, 25.0, 0.2))


def gaussians(grid: np.ndarray, bands=BANDS, shift: float = 0.0, factor: float = 1.0) -> np.ndarray:
    return sum(h * np.exp(-0.5 * ((grid - factor * c - shift) / (factor * w)) ** 2) for c, w, h in bands)


def experiment(curve: np.ndarray, grid: np.ndarray = GRID, absolute: bool = True) -> ExperimentalSpectrum:
    keep = (grid >= 500.0) & (grid <= 3900.0)
    return ExperimentalSpectrum(grid[keep], curve[keep], absolute, np.zeros(keep.sum(), dtype=bool), "made up", "test")


def spectrum(samples: np.ndarray, grid: np.ndarray = GRID) -> Spectrum:
    n = samples.shape[0]
    error = samples.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(grid.size, np.nan)
    return Spectrum(
        wavenumber_cm1=grid, epsilon=samples.mean(axis=0), epsilon_error=error, samples=samples,
        recipe=Recipe.named("gaussian", 16.0), temperature=300.0, time_step=20.0, n_frames=1000, n_replicas=n,
        error_origin=ErrorOrigin.REPLICAS if n > 1 else ErrorOrigin.NONE,
    )  # fmt: skip


def test_a_spectrum_equals_itself_on_any_scale() -> None:
    curve = gaussians(GRID)
    found = spectral_similarity(GRID, curve, GRID, 7.0 * curve).unscaled
    assert found.pearson == pytest.approx(1.0, abs=1e-12)
    assert found.cosine == pytest.approx(1.0, abs=1e-12)
    assert found.sis == pytest.approx(1.0, abs=1e-12)
    assert found.wasserstein_cm1 == pytest.approx(0.0, abs=1e-9)
    assert spectral_similarity(GRID, curve, GRID, 7.0 * curve).scaled.scale_factor == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("shift", [3.0, -12.0, 40.0])
def test_a_shifted_copy_has_the_figures_of_the_closed_forms(shift: float) -> None:
    # Two normal densities of one width w at distance d: SID = d^2/w^2, cosine = exp(-d^2/4w^2), earth mover's distance |d|.
    width, one = 60.0, ((2000.0, 60.0, 1.0),)
    settings = Comparing(range_cm1=(1500.0, 2500.0), scale_bounds=(1.0, 1.0), broadening_cm1=25.0)
    found = spectral_similarity(GRID, gaussians(GRID, one, shift), GRID, gaussians(GRID, one), settings).unscaled
    assert found.wasserstein_cm1 == pytest.approx(abs(shift), rel=1e-6)
    assert found.cosine == pytest.approx(np.exp(-((shift / width) ** 2) / 4.0), rel=1e-6)
    assert found.sis == pytest.approx(1.0 / (1.0 + shift**2 / (width**2 + 25.0**2)), rel=1e-4)


def test_bands_moved_apart_cost_their_share_times_the_way() -> None:
    pair, moved = ((1000.0, 15.0, 3.0), (2000.0, 15.0, 1.0)), ((1000.0, 15.0, 3.0), (2080.0, 15.0, 1.0))
    found = spectral_similarity(GRID, gaussians(GRID, moved), GRID, gaussians(GRID, pair), UNSCALED).unscaled
    assert found.wasserstein_cm1 == pytest.approx(20.0, rel=1e-6)


@pytest.mark.parametrize("factor", [0.97, 1.0, 1.0342])
def test_the_scale_factor_is_found_and_both_sets_are_given(factor: float) -> None:
    # The measured spectrum has its wavenumbers at `factor` times the computed ones.
    found = spectral_similarity(GRID, gaussians(GRID), GRID, gaussians(GRID, factor=factor))
    assert found.scaled.scale_factor == pytest.approx(factor, abs=2e-5)
    assert found.scaled.pearson == pytest.approx(1.0, abs=1e-4)
    assert found.unscaled.scale_factor == 1.0
    assert not found.at_bound
    if factor != 1.0:
        assert found.unscaled.pearson < 0.9
        assert found.unscaled.wasserstein_cm1 > 20.0
    beyond = spectral_similarity(GRID, gaussians(GRID), GRID, gaussians(GRID, factor=1.08), Comparing(scale_bounds=(1.0, 1.02)))
    assert beyond.at_bound


def test_a_comb_of_narrow_bands_does_not_trap_the_search() -> None:
    heights = np.random.default_rng(2).uniform(0.2, 1.0, 25)
    comb = tuple((1000.0 + 100.0 * k, 4.0, float(h)) for k, h in enumerate(heights))
    found = spectral_similarity(
        GRID, gaussians(GRID, comb), GRID, gaussians(GRID, comb, factor=0.957), Comparing(broadening_cm1=3.0)
    )
    assert found.scaled.scale_factor == pytest.approx(0.957, abs=2e-5)


def test_the_search_never_does_worse_than_no_scaling() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        a, b = (tuple((c, 20.0, h) for c, h in zip(rng.uniform(700, 3500, 5), rng.uniform(0.1, 1, 5))) for _ in range(2))
        found = spectral_similarity(GRID, gaussians(GRID, a), GRID, gaussians(GRID, b))
        assert found.scaled.merit >= found.unscaled.merit


def test_negative_values_and_the_noise_floor_are_counted() -> None:
    curve = gaussians(GRID)
    noisy = curve - 0.01
    found = spectral_similarity(GRID, curve, GRID, noisy, Comparing(range_cm1=(500.0, 3900.0), noise_floor=0.05))
    at = np.arange(500.0, 3900.5, 1.0)
    y = np.interp(at, GRID, noisy)
    assert found.negative_measured == pytest.approx(-y[y < 0].sum() / y[y > 0].sum(), rel=1e-9)
    assert found.negative_computed == 0.0
    kept = y >= 0.05 * y.max()
    assert found.below_floor[1] == pytest.approx(1.0 - y[kept].sum() / y[y > 0].sum(), rel=1e-9)
    assert found.range_cm1 == (500.0, 3900.0)


def test_what_the_range_leaves_out_does_not_count() -> None:
    extra = gaussians(GRID) + gaussians(GRID, ((2200.0, 20.0, 5.0),))
    left_out = spectral_similarity(GRID, extra, GRID, gaussians(GRID), Comparing((500.0, 1900.0)))
    assert left_out.unscaled.sis == pytest.approx(1.0, abs=1e-6)
    assert spectral_similarity(GRID, extra, GRID, gaussians(GRID)).unscaled.pearson < 0.8


def test_sis_is_symmetric_and_ignores_scale() -> None:
    p, q = gaussians(GRID) + 1e-3, gaussians(GRID, shift=15.0) + 2e-3
    assert information_similarity(p, q) == pytest.approx(information_similarity(9.0 * q, p), rel=1e-12)
    assert 0.0 < information_similarity(p, q) < 1.0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"settings": Comparing((100.0, 5000.0))}, "expected a range within"),
        ({"settings": Comparing((2000.0, 2200.0))}, "absorbs nothing"),
        ({"curve": np.full(GRID.size, np.nan)}, "computed spectrum has no ascending axis"),
        ({"axis": GRID[::-1]}, "computed spectrum has no ascending axis"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(change: dict, complaint: str) -> None:
    narrow = gaussians(GRID, ((1000.0, 5.0, 1.0), (1500.0, 5.0, 1.0)))
    settings = change.get("settings", Comparing())
    with pytest.raises(SpectrumError, match=complaint) as caught:
        spectral_similarity(change.get("axis", GRID), change.get("curve", narrow), GRID, narrow, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"range_cm1": (3.0, 2.0)}, {"spacing_cm1": 0.0}, {"noise_floor": 1.0}, {"scale_bounds": (1.1, 1.2)}]
)
def test_settings_out_of_order_are_refused(wrong: dict) -> None:
    with pytest.raises(SpectrumError):
        Comparing(**wrong)


def test_peaks_are_paired_one_to_one_and_the_strong_ones_first() -> None:
    measured = Peaks.of(np.array([3000.0, 1000.0, 1050.0, 2000.0]), np.array([80.0, 100.0, 5.0, 30.0]))
    computed = Peaks.of(np.array([1045.0, 1012.0, 3090.0, 2500.0]), np.array([1.0, 0.1, 0.9, 0.2]))
    table = match_peaks(measured, computed, 100.0)
    assert [(p.measured_cm1, p.computed_cm1) for p in table.pairs] == [(1000.0, 1045.0), (1050.0, 1012.0), (3000.0, 3090.0)]
    assert [p.deviation_cm1 for p in table.pairs] == [45.0, -38.0, 90.0]
    assert table.pairs[0].measured_height == 1.0
    assert (table.measured_alone_cm1, table.computed_alone_cm1) == ([2000.0], [2500.0])
    assert table.mean_deviation_cm1 == pytest.approx(97.0 / 3.0)
    assert table.mean_absolute_deviation_cm1 == pytest.approx(173.0 / 3.0)
    near = match_peaks(measured, computed, 60.0)
    assert [p.measured_cm1 for p in near.pairs] == [1000.0, 1050.0]
    assert match_peaks(measured, Peaks.of(np.empty(0), np.empty(0)), 60.0).mean_deviation_cm1 is None
    with pytest.raises(SpectrumError, match="largest distance"):
        match_peaks(measured, computed, 0.0)
    with pytest.raises(SpectrumError, match="heights"):
        Peaks.of(np.array([1.0]), np.array([1.0, 2.0]))


def test_measured_peaks_are_found_at_the_resolution_asked_for() -> None:
    uneven = 1e4 / np.linspace(1e4 / 3900.0, 1e4 / 500.0, 9000)[::-1]
    found = measured_peaks(experiment(gaussians(uneven), uneven), 8.0)
    np.testing.assert_allclose(found.position_cm1, [c for c, _, _ in BANDS], atol=0.5)
    branches = gaussians(uneven, ((1050.0, 5.0, 1.0), (1066.0, 5.0, 1.2), (1082.0, 5.0, 1.0)))
    assert measured_peaks(experiment(branches, uneven), 4.0).position_cm1.size == 3
    assert measured_peaks(experiment(branches, uneven), 30.0).position_cm1 == pytest.approx([1066.0], abs=0.5)
    with pytest.raises(SpectrumError, match="positive"):
        measured_peaks(experiment(branches, uneven), 0.0)


def test_shares_of_bands_and_their_error() -> None:
    # Two bands with independent random areas a, b: the share a/(a+b) of many replicas has a known spread.
    rng = np.random.default_rng(11)
    n = 400
    areas = rng.gamma(20.0, 1.0, (n, 2)) * np.array([1.0, 2.0])
    shapes = np.array([gaussians(GRID, ((1000.0, 20.0, 1.0),)), gaussians(GRID, ((3000.0, 20.0, 1.0),))])
    made = spectrum(areas @ shapes)
    low, high, names = 500.0, 3900.0, [NamedRange("a", 900.0, 1100.0), NamedRange("b", 2900.0, 3100.0)]
    first, second = band_shares(experiment(shapes[0] + 3.0 * shapes[1]), made, names, (low, high))
    assert (first.measured, second.measured) == pytest.approx((0.25, 0.75), rel=1e-4)
    mean = areas.mean(axis=0)
    assert first.computed == pytest.approx(mean[0] / mean.sum(), rel=1e-4)
    assert first.difference == pytest.approx(first.computed - first.measured, abs=1e-12)
    # By hand, first order: da (1-f)/S - db f/S.
    f, total = mean[0] / mean.sum(), mean.sum()
    spread = (areas[:, 0] * (1.0 - f) - areas[:, 1] * f).std(ddof=1) / total / np.sqrt(n)
    assert first.computed_error == pytest.approx(spread, rel=0.02)
    assert second.computed_error == pytest.approx(spread, rel=0.02)
    relative = band_shares(experiment(shapes[0] + 3.0 * shapes[1], absolute=False), made, names, (low, high))
    assert relative[0].measured_km_mol is None
    assert relative[0].measured == pytest.approx(0.25, rel=1e-4)
    lone = band_shares(experiment(shapes[0]), spectrum(areas[:1] @ shapes), names[:1], (low, high))
    assert lone[0].computed_error is None
    assert lone[0].computed_km_mol_error is None
    with pytest.raises(SpectrumError, match="outside of 500"):
        band_shares(experiment(shapes[0]), made, [NamedRange("c", 400.0, 600.0)], (low, high))
    with pytest.raises(SpectrumError, match="expected both above 0"):
        band_shares(experiment(-shapes[0]), made, names, (low, high))
    with pytest.raises(SpectrumError, match="low < high"):
        replace(names[0], low_cm1=2000.0)
