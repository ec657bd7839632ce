"""The chart of an infrared spectrum: the curve with its error band, and harmonic lines below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from densnet.report import charts
from densnet.report.blocks import Chart, Zoom

LABEL_GAP = 0.025  # of the axis; labels of peaks closer than this would touch


@dataclass(frozen=True)
class Lines:
    """Harmonic lines: cm^-1 ascending, imaginary ones negative, and km/mol."""

    frequency: list[float]
    intensity: list[float]


@dataclass(frozen=True)
class ErrorBand:
    """lower, upper: (K,) L/mol/cm; name: for the legend; words: for the caption."""

    lower: np.ndarray
    upper: np.ndarray
    name: str
    words: str


def line_title(name: str) -> str:
    return {"model_harmonic": "Model, harmonic", "dft_harmonic": "DFT, harmonic"}[name]


def spectrum_chart(
    grid: np.ndarray,
    epsilon: np.ndarray,
    error: np.ndarray,
    band: ErrorBand | None,
    peaks: np.ndarray,
    bands: Sequence[Mapping[str, Any]],
    model: Lines | None,
    dft: Lines | None,
    settings: Mapping[str, Any],
) -> Chart:
    """grid, epsilon, error: (K,) cm^-1, L/mol/cm, its standard error (NaN if there is none); peaks: cm^-1; bands: with low_cm1

    and high_cm1; settings: as in ir.json.
    """
    name = f"MD, {settings['temperature_kelvin']:g} K" if "temperature_kelvin" in settings else "MD"
    certain = np.isfinite(error).any()
    hover = f"%{{x:.1f}} cm⁻¹<br>%{{y:.4g}}{' ± %{customdata:.2g}' if certain else ''} L mol⁻¹ cm⁻¹<extra>{name}</extra>"
    data = [] if band is None else charts.band(grid, band.lower, band.upper, band.name, charts.MD)
    data.append(charts.line(grid, epsilon, name, charts.MD, hover, customdata=charts.numbers(error)))
    height = np.interp(peaks, grid, epsilon)
    above = height if band is None else np.maximum(height, np.interp(peaks, grid, band.upper))
    if len(peaks):
        data.append(
            {"type": "scatter", "mode": "markers+text", "x": peaks.tolist(), "y": charts.numbers(above), "name": "peaks",
             "text": _labels(peaks, height, float(np.ptp(grid))), "textposition": "top center", "showlegend": False,
             "marker": {"symbol": "line-ns-open", "size": 5, "color": charts.MUTED}, "textfont": {"size": 11},
             "cliponaxis": False, "hoverinfo": "skip"}
        )  # fmt: skip
    lower, upper = (epsilon, epsilon) if band is None else (band.lower, band.upper)
    top = 1.18 * float(np.nanmax(np.maximum(epsilon, upper), initial=1e-300))
    bottom = min(0.0, float(np.nanmin(np.minimum(epsilon, lower))))
    any_lines = model is not None or dft is not None
    extent = [float(grid[0]), float(grid[-1])]
    shape = charts.layout(
        hovermode="closest",
        hoverdistance=30,
        showlegend=True,
        xaxis=charts.axis("Wavenumber / cm⁻¹", range=extent, anchor="y2" if any_lines else "y"),
        yaxis=charts.axis(
            "Molar absorptivity / L mol⁻¹ cm⁻¹", domain=[0.36, 1.0] if any_lines else [0.0, 1.0], range=[bottom, top]
        ),
    )
    if any_lines:
        sign = -1 if model is not None else 1
        data += [] if model is None else charts.sticks(*_shown(model), line_title("model_harmonic"), charts.MODEL, "diamond", 1)
        data += [] if dft is None else charts.sticks(*_shown(dft), line_title("dft_harmonic"), charts.REFERENCE, "circle", sign)
        tallest = max(1e-3, *(h for found in (model, dft) if found is not None for h in found.intensity))
        step = float(f"{tallest / 2:.1g}")
        ticks = [i * step for i in range(-2 if model is not None and dft is not None else 0, 3)]
        shape["yaxis2"] = charts.axis(
            "Intensity / km mol⁻¹", domain=[0.0, 0.3], zeroline=True, zerolinecolor=charts.MUTED,
            range=[1.15 * tallest * sign if model is not None and dft is not None else 0.0, 1.15 * tallest],
            tickvals=ticks, ticktext=[f"{abs(t):g}" for t in ticks],
        )  # fmt: skip
    chart_alt = (
        f"Line chart of the molar absorptivity from {extent[0]:.0f} to {extent[1]:.0f} per centimetre"
        + (f", with peaks at {', '.join(f'{p:.0f}' for p in peaks)}" if len(peaks) else "")
        + (", harmonic lines as sticks below" if any_lines else "")
        + ". The tables that follow hold the numbers."
    )
    zooms = [_zoom(b) for b in bands]
    caption = (
        f"Infrared absorption of one molecule, absolute. Window {settings.get('window')}, resolution "
        f"{settings.get('resolution_cm1')} cm⁻¹, {settings.get('replicas')} replicas of {settings.get('length_ps', 0):.3g} ps. "
        + ("" if band is None else f"The shaded band is {band.words}. ")
        + ("Below, harmonic intensities on their own scale. " if any_lines else "")
        + "Drag to zoom, double-click to see all."
    )
    figure = {"data": data, "layout": shape}
    return Chart("ir", caption, chart_alt, figure, 620 if any_lines else 460, tuple(zooms), flips=True)


def _zoom(band: Mapping[str, Any]) -> Zoom:
    low, high, name = band["low_cm1"], band["high_cm1"], str(band.get("name", ""))
    limits = f"{low:.0f} to {high:.0f}"
    return Zoom(limits if name in ("", f"{low:.0f}-{high:.0f}") else f"{name}, {limits}", low, high)


def _shown(found: Lines) -> tuple[list[float], list[float]]:
    real = [(f, h) for f, h in zip(found.frequency, found.intensity) if f >= 0.0]
    return [f for f, _ in real], [h for _, h in real]


def _labels(peaks: np.ndarray, height: np.ndarray, width: float) -> list[str]:
    """Wavenumbers; none for a peak whose label would touch that of a higher one."""
    kept: list[int] = []
    for i in np.argsort(-height).tolist():
        if all(abs(peaks[i] - peaks[j]) > LABEL_GAP * width for j in kept):
            kept.append(i)
    return [f"{p:.0f}" if i in kept else "" for i, p in enumerate(peaks)]
