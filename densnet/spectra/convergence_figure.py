"""Convergence of a spectrum with the length of the trajectory, as a figure and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from densnet.spectra.convergence import Stage
from densnet.spectra.files import write_table
from densnet.spectra.plot import GREY, INK, MD_COLOUR, WAVENUMBER_LABEL, small_print, style

SHADES = ("#b9c9d8", "#7f9fbc", "#47739c", MD_COLOUR)
BAND_COLOURS = ("#1f4e79", "#c8553d", "#4f8a5b", "#8a5a9e", "#b58b2a", "#3b3b3b", "#2f8f9d", "#a64d79")
MOST_BANDS = len(BAND_COLOURS)


def convergence_figure(stages: Sequence[Stage], names: Sequence[str] = ()) -> Figure:
    """Spectra of the first eighth, quarter, half and all of a trajectory, one above the other, and band integrals against length.

    Beside every part its length, and Pearson's r and the relative area of the difference to the whole.
    names: of the bands in stages[...].areas. Integrals are relative to those of the whole, with standard errors; of many bands
    the strongest eight.
    """
    done = [stage for stage in stages if stage.spectrum is not None]
    curves = [stage.spectrum for stage in stages if stage.spectrum is not None]
    count = len(done[-1].areas)
    figure = Figure(figsize=(7.0, 3.0 + (2.4 if count else 0.0)), dpi=200, layout="constrained")
    grid = figure.add_gridspec(2 if count else 1, 1, height_ratios=[1.5, 1.0] if count else [1.0])
    axes = figure.add_subplot(grid[0])
    top = float(curves[-1].epsilon.max()) or 1.0
    offset = 0.55 * top
    for row, (stage, curve) in enumerate(zip(done, curves)):
        shift = row * offset
        axes.plot(curve.wavenumber_cm1, curve.epsilon + shift, color=SHADES[row + 4 - len(done)], lw=0.9, zorder=10 - row)
        words = f"{stage.length_ps:.3g} ps"
        if stage is not done[-1] and stage.pearson is not None and stage.difference is not None:
            words += f"\nr = {stage.pearson:.3f}\nΔ = {100.0 * stage.difference:.0f} %"
        place = {"xy": (1.01, shift - 0.03 * top), "xycoords": ("axes fraction", "data"), "ha": "left", "va": "bottom"}
        axes.annotate(words, **place, fontsize=7, color=INK, annotation_clip=False)
    axes.set(xlim=(0.0, curves[-1].recipe.max_cm1), ylim=(-0.05 * top, (len(done) - 1) * offset + 1.12 * top))
    axes.set_xlabel(WAVENUMBER_LABEL + small_print(curves[-1]))
    axes.set_ylabel("Molar absorptivity, shifted /\nL mol$^{-1}$ cm$^{-1}$")
    axes.set_title("First part of the trajectory against the whole", loc="left", fontsize=9, color=INK)
    style(axes)
    if count:
        _areas(figure.add_subplot(grid[1]), done, names)
    return figure


def _areas(axes: Axes, done: Sequence[Stage], names: Sequence[str]) -> None:
    whole = done[-1]
    strongest = sorted(range(len(whole.areas)), key=lambda i: -whole.areas[i].value)[:MOST_BANDS]
    lengths = np.array([stage.length_ps for stage in done])
    for place, (index, colour) in enumerate(zip(sorted(strongest), BAND_COLOURS)):
        reference = whole.areas[index].value or 1.0
        values = np.array([stage.areas[index].value for stage in done]) / reference
        errors = np.array([stage.areas[index].error for stage in done]) / abs(reference)
        shift = 1.0 + 0.02 * (place - 0.5 * (len(strongest) - 1))
        axes.errorbar(lengths * shift, values, yerr=np.nan_to_num(errors), color=colour, lw=0.9, marker="o", ms=3, capsize=2,
                      elinewidth=0.8, label=names[index] if names else f"band {index + 1}")  # fmt: skip
    axes.axhline(1.0, color=GREY, lw=0.6, zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("Length / ps")
    axes.set_ylabel("Band integral /\nthat of the whole")
    style(axes)
    axes.xaxis.set_major_locator(FixedLocator(lengths.tolist()))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{length:.3g}" for length in lengths]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)


def write_convergence(path: Path, stages: Sequence[Stage], names: Sequence[str]) -> None:
    """The table as CSV: part, length, similarity to the whole, and every band with its standard error, km/mol."""
    recipe = next(stage.spectrum for stage in stages if stage.spectrum is not None).recipe
    lines = [
        "# convergence: the spectrum of the first part of the trajectory; errors: one standard error; nan: too short",
        f"# resolution_cm1: {recipe.window.resolution_cm1}, the same for all parts",
        "# pearson: correlation with the whole; difference: integral of |spectrum - whole| over the integral of the whole",
    ]
    quoted = [name.replace(",", ";") for name in names]
    header = ["part", "length_ps", "pearson", "difference"]
    header += [f"{name}_{what}" for name in quoted for what in ("km_mol", "error")]
    rows = []
    for stage in stages:
        areas = [x for a in stage.areas for x in (a.value, a.error)] or [np.nan] * (2 * len(quoted))
        known = [np.nan if x is None else x for x in (stage.pearson, stage.difference)]
        rows.append([float(stage.part), stage.length_ps, *known, *areas])
    write_table(path, [*lines, ",".join(header)], [*np.array(rows, dtype=np.float64).T])
