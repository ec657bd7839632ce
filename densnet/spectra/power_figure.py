"""The power spectrum of the velocities as a figure and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from densnet.spectra.files import write_table
from densnet.spectra.plot import GREY, INK, WAVENUMBER_LABEL, band_label, style
from densnet.spectra.uncertainty import ErrorMethod, ErrorOrigin
from densnet.spectra.vibrational_density import VibrationalDensity
from densnet.units import FS_PER_AU, PS_PER_AU

# The usual colours of atoms, dark enough for lines.
ATOM_COLOURS = {"H": "#8c9aa8", "C": "#3b3b3b", "N": "#2f5fb3", "O": "#c0392b", "F": "#3f9b4f", "S": "#c9a227", "Cl": "#2e8b57"}


@dataclass(frozen=True)
class PowerSummary:
    """What ir.json says about the power spectrum; degrees of freedom found in it, in all and per element."""

    degrees_of_freedom: int
    integral: float
    elements: dict[str, float]
    rigid_motion: str
    temperature_kelvin: float
    temperature_error_kelvin: float | None

    @staticmethod
    def of(density: VibrationalDensity) -> PowerSummary:
        error = density.temperature_error
        return PowerSummary(
            density.degrees_of_freedom,
            density.integral,
            {chemical_symbols[z]: float(x) for z, x in zip(density.elements, density.element_integral)},
            "removed" if density.rigid_motion_removed else "kept",
            density.temperature,
            error if isfinite(error) else None,
        )


def power_figure(density: VibrationalDensity, title: str = "") -> Figure:
    """Degrees of freedom per cm^-1: the total with its error band, below it the shares of the elements, stacked."""
    figure = Figure(figsize=(7.0, 3.7), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    grid = density.wavenumber_cm1
    (line,) = axes.plot(grid, density.total, color=INK, lw=0.9, zorder=5)
    handles: list[Artist] = [line]
    names = [f"All atoms ({density.integral:.1f})"]
    if density.error_origin is not ErrorOrigin.NONE:
        handles.append(axes.fill_between(grid, *density.total_interval, color=INK, alpha=0.15, lw=0.0, zorder=2))
        names.append(band_label(density))
    # Shares add up to the total, so they are stacked, heavy atoms below.
    below = np.zeros_like(grid)
    for number, curve, share in reversed([*zip(density.elements, density.element, density.element_integral)]):
        symbol = chemical_symbols[number]
        colour = ATOM_COLOURS.get(symbol, GREY)
        handles.append(axes.fill_between(grid, below, below + curve, color=colour, alpha=0.75, lw=0.0, zorder=3))
        names.append(f"{symbol} ({share:.1f})")
        below = below + curve
    top = float(np.fmax(density.total, density.total_interval[1]).max(initial=0.0)) or 1.0
    axes.set(xlim=(0.0, density.recipe.max_cm1), ylim=(min(0.0, float(density.total.min())), 1.08 * top))
    axes.set_ylabel("Degrees of freedom / cm")
    window = density.recipe.window
    rigid = "rigid motion removed" if density.rigid_motion_removed else "rigid motion kept"
    axes.set_xlabel(f"{WAVENUMBER_LABEL}    ({window.kind.value} window, {window.resolution_cm1:g} cm$^{{-1}}$; {rigid})")
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=INK)
    style(axes)
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False, fontsize=7.5)
    return figure


def write_power(path: Path, density: VibrationalDensity, source: str) -> None:
    """The power spectrum as CSV, settings in lines that start with #."""
    recipe, rule = density.recipe, density.recipe.uncertainty
    found = PowerSummary.of(density)
    lines = [
        "# power spectrum of mass-weighted velocities, degrees of freedom per cm^-1",
        f"# source: {source}",
        f"# window: {recipe.window.kind.value}",
        f"# resolution_cm1: {recipe.window.resolution_cm1}",
        f"# zero_padding: {recipe.zero_padding}",
        f"# rigid_motion: {found.rigid_motion}",
        f"# degrees_of_freedom: {found.degrees_of_freedom} if thermal, {found.integral:.6g} found",
        f"# vibrational_temperature_kelvin: {found.temperature_kelvin:.6g}, to which the spectrum is normalised",
        f"# time_step_fs: {density.time_step * FS_PER_AU:.8g}",
        f"# length_ps: {(density.n_frames - 1) * density.time_step * PS_PER_AU:.8g}",
        f"# replicas: {density.n_replicas}",
        f"# error: {density.error_origin.value}",
        f"# error_method: {rule.method.value}",
        f"# confidence: {rule.confidence} (of total_lower, total_upper; the other errors are one standard error)",
    ]
    if rule.method is ErrorMethod.BOOTSTRAP:
        lines += [f"# bootstrap_resamples: {rule.resamples}", f"# bootstrap_seed: {rule.seed}"]
    symbols = [chemical_symbols[z] for z in density.elements]
    headings = ["wavenumber_cm1", "total", "total_error", "total_lower", "total_upper"]
    headings += [name for symbol in symbols for name in (symbol, f"{symbol}_error")]
    columns: Sequence[np.ndarray] = [
        density.wavenumber_cm1,
        density.total,
        density.total_error,
        *density.total_interval,
        *(curve for pair in zip(density.element, density.element_error) for curve in pair),
    ]
    write_table(path, [*lines, ",".join(headings)], columns)
