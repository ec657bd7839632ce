"""The comparison with experiment on disk: figure, table and JSON say the same, whole or not at all."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from test_spectra_report import water
from test_spectra_similarity import GRID, experiment, gaussians, spectrum

from densnet.errors import SpectrumError
from densnet.spectra.experiment_figure import comparison_figure, relative_scale
from densnet.spectra.experiment_report import ComparisonSettings, write_comparison
from densnet.spectra.peak_matching import NamedRange
from densnet.spectra.plot import MD_COLOUR, model_sticks, reference_sticks
from densnet.spectra.similarity import Comparing

NAMES = (("C-O", 940.0, 1200.0), ("C-H", 2700.0, 3200.0), ("O-H", 3550.0, 3800.0))


def computed(factor: float = 0.98):
    rng = np.random.default_rng(1)
    return spectrum(100.0 * gaussians(GRID, factor=factor) * rng.gamma(30.0, 1.0 / 30.0, (8, 1)))


def texts(figure) -> list[str]:
    found = [t.get_text() for axes in figure.axes for t in axes.texts]
    return found + [t.get_text() for legend in figure.legends for t in legend.get_texts()] + [figure.get_supxlabel()]


def test_everything_is_written_and_agrees(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    measured = experiment(100.0 * gaussians(GRID))
    settings = ComparisonSettings(names=NAMES, omit_cm1=(1700.0, 2600.0))
    made = write_comparison(tmp_path, computed(), measured, "made up", water(), water(1.02), settings, title="Water")
    assert {p.name for p in tmp_path.iterdir()} == {f"comparison.{kind}" for kind in ("png", "svg", "csv", "json")}
    read = json.loads((tmp_path / "comparison.json").read_text())
    scaled, unscaled = read["similarity"]["scaled"], read["similarity"]["unscaled"]
    assert scaled["scale_factor"] == pytest.approx(1.0 / 0.98, abs=1e-4)
    assert unscaled["scale_factor"] == 1.0
    assert scaled["pearson"] > unscaled["pearson"]
    assert {b["name"]: round(b["measured"], 2) for b in read["bands"]} == {b.name: round(b.measured, 2) for b in made.bands}
    assert [round(p["deviation_cm1"]) for p in read["md"]["pairs"]] == [-18, -21, -28, -59, -73]
    assert read["experiment"]["relative_factor"] is None
    assert read["harmonic_dft"] is not None
    lines = [line for line in (tmp_path / "comparison.csv").read_text().splitlines() if not line.startswith("#")]
    table = np.genfromtxt(lines, delimiter=",", names=True)
    np.testing.assert_allclose(table["experiment"], measured.absorbance, rtol=1e-6)
    np.testing.assert_allclose(table["md"], np.interp(table["wavenumber_cm1"], GRID, computed().epsilon), rtol=1e-6, atol=1e-9)
    with Image.open(tmp_path / "comparison.png") as image:
        assert image.size == (2100, 1470)
    assert ElementTree.parse(tmp_path / "comparison.svg").getroot().tag.endswith("svg")
    assert "unscaled: Pearson" in caplog.text
    assert f"wavenumbers x {scaled['scale_factor']:.4f}" in caplog.text


def test_a_relative_experiment_is_scaled_to_the_same_area_and_says_so(tmp_path: Path) -> None:
    measured = experiment(0.003 * gaussians(GRID), absolute=False)
    made = write_comparison(tmp_path, computed(1.0), measured, "made up", settings=ComparisonSettings(names=NAMES))
    (points, curve), factor = relative_scale(computed(1.0), measured, made.range_cm1)
    np.testing.assert_allclose(np.trapezoid(curve, points), np.trapezoid(np.interp(points, GRID, computed(1.0).epsilon), points))
    assert made.experiment.relative_factor == factor
    assert made.harmonic_dft is None
    assert "multiplied by" in (tmp_path / "comparison.csv").read_text()
    assert any("scaled to the area" in t for t in texts(comparison_figure(computed(), measured)))
    assert not any("scaled to the area" in t for t in texts(comparison_figure(computed(), replace(measured, absolute=True))))


def test_the_shade_is_the_95_percent_interval() -> None:
    """At every wavenumber of the computed spectrum, lower and upper end; not a standard error."""
    made = computed()
    figure = comparison_figure(made, experiment(100.0 * gaussians(GRID)), range_cm1=(900.0, 3850.0))
    (axes,) = figure.axes
    curve = next(line for line in axes.lines if line.get_color() == MD_COLOUR)
    band = axes.collections[1].get_paths()[0].vertices
    inside = (GRID > 950.0) & (GRID < 3800.0) & (made.epsilon_error > 0.1)
    assert inside.sum() > 20
    for k in np.flatnonzero(inside)[::7]:
        ends = band[np.isclose(band[:, 0], GRID[k]), 1]
        assert [ends.min(), ends.max()] == pytest.approx([limit[k] for limit in made.interval])
        assert np.interp(GRID[k], curve.get_xdata(), curve.get_ydata()) == pytest.approx(made.epsilon[k])
        assert np.ptp(ends) > 3.0 * made.epsilon_error[k]


def test_the_figure_shows_what_it_is_asked_for() -> None:
    measured = experiment(100.0 * gaussians(GRID))
    opaque = replace(measured, saturated=np.abs(measured.wavenumber_cm1 - 1060.0) < 5.0)
    sticks = [reference_sticks(water()), model_sticks(water(1.02))]
    names = [NamedRange(*n) for n in NAMES]
    figure = comparison_figure(computed(), opaque, sticks, names, (900.0, 3850.0), scale_factor=1.01)
    assert figure.axes[0].get_xlim() == (3850.0, 900.0)
    words = texts(figure)
    assert {"C-O", "C-H", "O-H", "Experiment", "DFT, harmonic", "Model, harmonic"} <= set(words)
    assert any("opaque" in w for w in words)
    assert any("× 1.0100" in w for w in words)
    assert any("8 replicas" in w for w in words)
    rising = comparison_figure(computed(), measured, range_cm1=(900.0, 3850.0), decreasing=False)
    assert rising.axes[0].get_xlim() == (900.0, 3850.0)
    assert len(rising.axes) == 1
    broken = comparison_figure(computed(), measured, sticks, names, (900.0, 3850.0), (1700.0, 2600.0))
    assert [axes.get_xlim() for axes in broken.axes] == [(3850.0, 2600.0), (1700.0, 900.0)] * 2


def test_scaled_computed_curve_is_where_the_factor_puts_it() -> None:
    figure = comparison_figure(computed(1.0), experiment(100.0 * gaussians(GRID)), scale_factor=1.02)
    line = next(item for item in figure.axes[0].lines if item.get_linewidth() == 1.3)
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    near = (x > 900.0) & (x < 1200.0)
    assert x[near][np.argmax(y[near])] == pytest.approx(1060.0 * 1.02, abs=0.6)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (ComparisonSettings(names=(("far", 4000.0, 4100.0),)), "outside of 500"),
        (ComparisonSettings(names=(("C-O", 940.0),)), "expected a name and two wavenumbers"),  # type: ignore[arg-type]
        (ComparisonSettings(omit_cm1=(100.0, 200.0)), "leave out"),
        (ComparisonSettings(comparing=Comparing((100.0, 3000.0))), "both cover 500"),
        (ComparisonSettings(max_distance_cm1=-1.0), "largest distance"),
        (ComparisonSettings(prominence=0.0), "prominence 0"),
    ],
)
def test_a_mistake_leaves_nothing_behind(tmp_path: Path, settings: ComparisonSettings, complaint: str) -> None:
    with pytest.raises(SpectrumError, match=complaint) as caught:
        write_comparison(tmp_path / "out", computed(), experiment(gaussians(GRID)), "made up", settings=settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
