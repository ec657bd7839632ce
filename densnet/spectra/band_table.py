"""The assigned bands of a spectrum as a table: which modes make a band, what they are in words, and which atoms move.

The share of mode k in a band is the integral of its part of the infrared spectrum over that of the whole one
(densnet.spectra.assignment); all shares and the rest add up to 1. The parts of intensity from charge moving with the atoms,
charge flowing between them and atoms deforming are m_i . m / |m|^2 of the three vectors m_i that make m = dmu/dQ; they add up
to 1, and one may be negative or exceed 1. Atoms and words of a band are those of its modes, weighted by their shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ase.data import chemical_symbols
from scipy.integrate import trapezoid

from densnet.spectra.assignment import ModeInfrared, ModeSpectra
from densnet.spectra.bands import bands, integrate
from densnet.spectra.eckart import Reference
from densnet.spectra.infrared import Spectrum
from densnet.spectra.internal_coordinates import energy_shares, internal_coordinates

WORTH_NAMING = 0.15  # share of a coordinate in a mode
VALLEY = 0.7  # two maxima are two bands if the minimum between them is below this part of the lower one


class DipoleParts(Protocol):
    """Parts of dmu/dQ, (n_vib, 3) each; densnet.model.charge_flow.ChargeFlow is one."""

    @property
    def moving(self) -> np.ndarray: ...
    @property
    def flowing(self) -> np.ndarray: ...
    @property
    def deforming(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Share:
    """A named part of a whole."""

    name: str
    share: float


@dataclass(frozen=True)
class Origin:
    """Parts of an intensity: charge moving with atoms, charge flowing between atoms, atoms deforming."""

    moving: float
    flowing: float
    deforming: float


@dataclass(frozen=True)
class Mode:
    """A normal mode in words.

    number: from 1; coordinates: internal coordinates by share of potential energy, the largest first; kinds: the same by kind;
    atoms, elements: by share of kinetic energy; displacement: by share of squared displacement, elements; md_cm1: where its
    spectrum is highest; freedom: <(dQ/dt)^2>/kT (1 by equipartition); md values None if no frame belongs to the reference.
    """

    reference: str
    number: int
    harmonic_cm1: float
    harmonic_km_mol: float
    label: str
    coordinates: list[Share]
    kinds: list[Share]
    atoms: list[Share]
    elements: list[Share]
    displacement: list[Share]
    origin: Origin | None
    md_cm1: float | None
    freedom: float | None


@dataclass(frozen=True)
class Part:
    """What a mode gives to a band: share of its absorption with standard error, km/mol; freedom: degrees of freedom there."""

    reference: str
    number: int
    harmonic_cm1: float
    label: str
    share: float
    share_error: float | None
    km_mol: float
    freedom: float


@dataclass(frozen=True)
class AssignedBand:
    """A band: limits and highest point, cm^-1; integral with standard error, km/mol; parts: its modes, the largest share first.

    rest: the share that no mode explains; coordinates, label: what moves, the leading ones in words; atoms, elements: what
    moves, by share of kinetic energy; origin: of the intensity. None where unknown.
    """

    low_cm1: float
    high_cm1: float
    peak_cm1: float
    km_mol: float
    error_km_mol: float | None
    parts: list[Part]
    rest: float
    rest_error: float | None
    coordinates: list[Share]
    label: str
    atoms: list[Share]
    elements: list[Share]
    origin: Origin | None


def describe(reference: Reference, spectra: ModeSpectra, index: int, parts: DipoleParts | None) -> list[Mode]:
    """The modes of a reference, the index-th of the spectra, in words."""
    modes = reference.modes
    internals = internal_coordinates(modes.number, modes.position)
    shares = energy_shares(modes, internals)
    kinetic = (modes.vector.reshape(-1, 3, shares.shape[1]) ** 2).sum(axis=1)
    squared = kinetic / modes.mass[:, None]
    squared = squared / squared.sum(axis=0)
    symbols = [chemical_symbols[z] for z in modes.number]
    atoms = [f"{symbol}{i + 1}" for i, symbol in enumerate(symbols)]
    out = []
    for k in range(shares.shape[1]):
        coordinates = _grouped([c.group for c in internals.coordinates], shares[:, k])
        curve, freedom = spectra.density[index, k], float(spectra.freedom[index, k])
        seen = bool(np.isfinite(freedom))
        out.append(
            Mode(
                reference=reference.name,
                number=k + 1,
                harmonic_cm1=float(modes.frequency_cm1[k]),
                harmonic_km_mol=float(modes.intensity_km_mol[k]),
                label=words(coordinates),
                coordinates=[s for s in coordinates if abs(s.share) >= 0.005],
                kinds=_grouped([c.kind.value for c in internals.coordinates], shares[:, k]),
                atoms=[Share(*pair) for pair in zip(atoms, kinetic[:, k].tolist())],
                elements=_grouped(symbols, kinetic[:, k]),
                displacement=_grouped(symbols, squared[:, k]),
                origin=None if parts is None else _origin(parts, k),
                md_cm1=float(spectra.wavenumber_cm1[curve.argmax()]) if seen else None,
                freedom=freedom if seen else None,
            )
        )
    return out


def assign(
    spectrum: Spectrum,
    limits: Sequence[tuple[float, float]],
    modes: Sequence[Sequence[Mode]],
    spectra: ModeSpectra,
    infrared: ModeInfrared,
) -> list[AssignedBand]:
    """Every band between limits (low, high) cm^-1 assigned; modes: those of every reference, from `describe`."""
    return [_assigned(spectrum, low, high, modes, spectra, infrared) for low, high in limits]


def band_limits(spectrum: Spectrum, peaks_cm1: np.ndarray) -> list[tuple[float, float]]:
    """The stretches that bands.bands finds, cut between maxima that stand apart; those without a maximum are left out."""
    grid, curve = spectrum.wavenumber_cm1, spectrum.epsilon
    found: list[tuple[float, float]] = []
    for low, high in bands(spectrum):
        inside = [float(p) for p in np.sort(peaks_cm1) if low <= p <= high]
        start = low
        for i in range(1, len(inside)):
            between = np.flatnonzero((grid >= inside[i - 1]) & (grid <= inside[i]))
            valley = between[curve[between].argmin()]
            top = curve[(grid >= start) & (grid <= grid[valley])].max()
            if curve[valley] < VALLEY * min(top, float(np.interp(inside[i], grid, curve))):
                found.append((start, float(grid[valley])))
                start = float(grid[valley])
        if inside:
            found.append((start, high))
    return found


def words(coordinates: Sequence[Share]) -> str:
    """The coordinates worth naming with their shares, such as `C-O stretch 56 %, CH3 rock 25 %`."""
    named = [s for s in coordinates if s.share >= WORTH_NAMING] or list(coordinates[:1])
    return ", ".join(f"{s.name} {100.0 * s.share:.0f} %" for s in named)


def area_between(grid: np.ndarray, curves: np.ndarray, low: float, high: float) -> np.ndarray:
    """Integrals (...) of curves (..., K) on an ascending grid (K,) between two of its points' values."""
    steps = np.clip(np.array([low, high]), grid[0], grid[-1])
    points = np.concatenate([steps[:1], grid[(grid > steps[0]) & (grid < steps[1])], steps[1:]])
    at = np.clip(np.searchsorted(grid, points, side="right") - 1, 0, grid.size - 2)
    weight = (points - grid[at]) / (grid[at + 1] - grid[at])
    return np.asarray(trapezoid(curves[..., at] * (1.0 - weight) + curves[..., at + 1] * weight, points, axis=-1))


def _assigned(
    spectrum: Spectrum,
    low: float,
    high: float,
    modes: Sequence[Sequence[Mode]],
    spectra: ModeSpectra,
    infrared: ModeInfrared,
) -> AssignedBand:
    km_mol, error = integrate(spectrum, low, high)
    whole = area_between(infrared.wavenumber_cm1, infrared.total_samples, low, high)
    pieces = area_between(infrared.wavenumber_cm1, infrared.samples, low, high)
    shares, errors = _ratio(pieces, whole)
    rest, rest_error = _ratio(whole - pieces.sum(axis=(1, 2)), whole)
    freedom = area_between(spectra.wavenumber_cm1, spectra.weighted, low, high)
    parts = [
        Part(
            reference=mode.reference,
            number=mode.number,
            harmonic_cm1=mode.harmonic_cm1,
            label=mode.label,
            share=float(shares[c, k]),
            share_error=_known(errors[c, k]),
            km_mol=float(shares[c, k]) * km_mol,
            freedom=float(freedom[c, k]),
        )
        for c, some in enumerate(modes)
        for k, mode in enumerate(some)
    ]
    flat = [mode for some in modes for mode in some]
    weight = np.maximum(shares.reshape(-1), 0.0)
    weight = weight / (weight.sum() or 1.0)
    known = [m.origin for m in flat]
    origin = None
    if all(o is not None or w == 0.0 for o, w in zip(known, weight)):
        split = [[o.moving, o.flowing, o.deforming] for o in known if o is not None]
        origin = Origin(*map(float, weight[[o is not None for o in known]] @ np.array(split))) if split else None
    coordinates = _weighted([m.coordinates for m in flat], weight)
    inside = (spectrum.wavenumber_cm1 >= low) & (spectrum.wavenumber_cm1 <= high)
    return AssignedBand(
        low_cm1=float(low),
        high_cm1=float(high),
        peak_cm1=float(spectrum.wavenumber_cm1[inside][spectrum.epsilon[inside].argmax()]),
        km_mol=km_mol,
        error_km_mol=_known(error),
        parts=sorted(parts, key=lambda p: -p.share),
        rest=float(rest),
        rest_error=_known(rest_error),
        coordinates=coordinates,
        label=words(coordinates),
        atoms=_weighted([m.atoms for m in flat], weight),
        elements=_weighted([m.elements for m in flat], weight),
        origin=origin,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of the means over the first axis and its jackknife error, NaN for a single sample; part (G, ...), whole (G,)."""
    n = whole.size
    shape = (n, *(1,) * (part.ndim - 1))
    ratio = part.sum(axis=0) / whole.sum()
    if n < 2:
        return ratio, np.full_like(ratio, np.nan)
    left_out = (part.sum(axis=0) - part) / (whole.sum() - whole).reshape(shape)
    return ratio, np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))


def _origin(parts: DipoleParts, k: int) -> Origin | None:
    pieces = np.stack([parts.moving[k], parts.flowing[k], parts.deforming[k]])
    total = pieces.sum(axis=0)
    norm = float(total @ total)
    return Origin(*map(float, pieces @ total / norm)) if norm > 0.0 else None


def _grouped(names: Sequence[str], values: np.ndarray) -> list[Share]:
    total: dict[str, float] = {}
    for name, value in zip(names, values):
        total[name] = total.get(name, 0.0) + float(value)
    return sorted((Share(n, v) for n, v in total.items()), key=lambda s: -s.share)


def _weighted(shares: Sequence[Sequence[Share]], weight: np.ndarray) -> list[Share]:
    names = [s.name for some in shares for s in some]
    return _grouped(names, np.array([w * s.share for some, w in zip(shares, weight) for s in some]))


def _known(value: float | np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
