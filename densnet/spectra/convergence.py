"""How far a spectrum has converged: the same spectrum from the first eighth, quarter, half and all of the trajectory.

What lies within one trajectory converges so (phases, rotation, slow torsions it crosses many times); the energy a stiff mode
keeps does not, and shows in the error band over replicas alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

import numpy as np
from scipy.integrate import trapezoid

from densnet.errors import SpectrumError
from densnet.spectra.bands import Area, area
from densnet.spectra.infrared import Recipe, Spectrum, infrared_spectrum
from densnet.units import PS_PER_AU

COARSEST_CM1 = 40.0  # no band of its own is left beyond
PARTS = (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1))


@dataclass(frozen=True)
class Stage:
    """The spectrum of the first part of a trajectory.

    part: of the whole; length: atomic time; spectrum: None if the part is shorter than the window, with `reason`; areas: of
    every band; pearson: correlation coefficient of its curve with that of the whole; difference: integral of the absolute
    difference to the whole over the integral of the whole, 0 if equal, 2 if they have nothing in common.
    """

    part: Fraction
    length: float
    spectrum: Spectrum | None
    areas: tuple[Area, ...]
    pearson: float | None
    difference: float | None
    reason: str = ""

    @property
    def length_ps(self) -> float:
        return self.length * PS_PER_AU


def convergence(
    dipole: np.ndarray,
    time_step: float,
    temperature: float,
    recipe: Recipe,
    limits: Sequence[tuple[float, float]] = (),
    whole: Spectrum | None = None,
) -> list[Stage]:
    """Spectrum and band integrals of the first 1/8, 1/4, 1/2 and all of a trajectory; arguments as `infrared_spectrum`.

    limits: (low, high) cm^-1 of the bands to integrate; whole: the spectrum of all of it, if it is there already.
    All four have the same resolution: that of the recipe, or a coarser one that suits the shortest part as long as it is no
    coarser than 40 cm^-1; `spectrum.recipe` of a stage says which.
    Raises SpectrumError if all of it is too short, or limits lie outside the spectrum.
    """
    frames = [1 + int((dipole.shape[0] - 1) * part) for part in PARTS]
    window = recipe.window
    if recipe.maximum_entropy is None:
        needed = (window.resolution_cm1 * window.support / ((count - 1) * time_step) for count in frames)
        coarse = next((1.01 * width for width in needed if window.resolution_cm1 < width <= COARSEST_CM1), window.resolution_cm1)
        if coarse > window.resolution_cm1:
            recipe, whole = replace(recipe, window=replace(window, resolution_cm1=ceil(coarse))), None
    whole = whole or infrared_spectrum(dipole, time_step, temperature, recipe)
    stages = []
    for part, count in zip(PARTS, frames):
        length = (count - 1) * time_step
        try:
            spectrum = whole if part == 1 else infrared_spectrum(dipole[:count], time_step, temperature, recipe)
        except SpectrumError as error:
            stages.append(Stage(part, length, None, (), None, None, str(error)))
            continue
        areas = tuple(area(spectrum, low, high) for low, high in limits)
        stages.append(Stage(part, length, spectrum, areas, *_similarity(spectrum, whole)))
    return stages


def _similarity(spectrum: Spectrum, whole: Spectrum) -> tuple[float | None, float | None]:
    one, other = spectrum.epsilon, whole.epsilon
    total = float(trapezoid(np.abs(other), whole.wavenumber_cm1))
    if total == 0.0 or one.std() == 0.0:
        return None, None
    difference = float(trapezoid(np.abs(one - other), whole.wavenumber_cm1)) / total
    return float(np.corrcoef(one, other)[0, 1]), difference
