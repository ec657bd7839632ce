"""Normal modes to look at: multi-frame extended xyz of every vibration, and a Molden file of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write

from densnet.errors import ConfigError
from densnet.files import replacing, write_text
from densnet.spectra.harmonic import NormalModes
from densnet.units import ANGSTROM_PER_BOHR, BOLTZMANN, CM1_PER_AU


@dataclass(frozen=True)
class AnimationSettings:
    """frames: of one period; temperature: kelvin, 0 for the zero-point motion alone; largest_angstrom: no atom moves farther

    from its place; imaginary modes, which have no turning point, are shown with that amplitude. Raises ConfigError.
    """

    frames: int = 24
    temperature: float = 298.15
    largest_angstrom: float = 0.5

    def __post_init__(self) -> None:
        if self.frames < 4 or self.temperature < 0 or not self.largest_angstrom > 0:
            raise ConfigError(
                f"animation has frames={self.frames}, temperature={self.temperature:g}, "
                f"largest_angstrom={self.largest_angstrom:g}; "
                "expected at least 4 frames, a temperature of at least 0 and a positive length; correct them"
            )


@dataclass(frozen=True)
class Amplitude:
    """How far a mode is moved. coordinate: Q, bohr times the root of an electron mass; angstrom: the atom that moves most;

    capped: whether the largest displacement of the settings limited it.
    """

    coordinate: float
    angstrom: float
    capped: bool


def turning_point(frequency_cm1: float, temperature: float) -> float:
    """Where a classical oscillator with the mean energy of the quantum one turns: Q = sqrt(hbar/omega coth(hbar omega/2kT)).

    frequency_cm1 > 0; temperature: kelvin, 0 gives the zero-point motion, sqrt(hbar/omega). The mean square of the quantum
    oscillator's Q is half of its square.
    """
    omega = frequency_cm1 / CM1_PER_AU
    ratio = 0.5 * omega / (BOLTZMANN * temperature) if temperature > 0 else np.inf
    return float(np.sqrt(1.0 / (omega * np.tanh(ratio))))


def amplitude(modes: NormalModes, mode: int, settings: AnimationSettings) -> Amplitude:
    """Turning point of the mode (counted from 0), or the largest displacement allowed, whichever is less."""
    farthest = float(np.linalg.norm(modes.per_coordinate[mode], axis=1).max()) * ANGSTROM_PER_BOHR
    limit = settings.largest_angstrom / farthest
    frequency = float(modes.frequency_cm1[mode])
    wanted = turning_point(frequency, settings.temperature) if frequency > 0 else np.inf
    return Amplitude(min(wanted, limit), min(wanted, limit) * farthest, wanted > limit)


def displaced(modes: NormalModes, mode: int, settings: AnimationSettings) -> np.ndarray:
    """(frames, N, 3) bohr: one period that begins at the stationary point; repeated without a seam."""
    phase = np.sin(2.0 * np.pi * np.arange(settings.frames) / settings.frames)
    size = amplitude(modes, mode, settings).coordinate
    return modes.position + size * phase[:, None, None] * modes.per_coordinate[mode]


def write_animation(path: Path | str, modes: NormalModes, mode: int, settings: AnimationSettings) -> None:
    """Multi-frame extended xyz, angstrom, whole or not at all; the comment lines say which mode and how large it is drawn."""
    size = amplitude(modes, mode, settings)
    meaning = f"largest_angstrom={settings.largest_angstrom:g}" if size.capped else f"turning point at {settings.temperature:g} K"
    about = {
        "mode": mode + 1,
        "frequency_cm1": round(float(modes.frequency_cm1[mode]), 3),
        "intensity_km_mol": round(float(modes.intensity_km_mol[mode]), 4),
        "amplitude_angstrom": round(size.angstrom, 4),
        "amplitude_is": meaning,
    }
    frames = [
        Atoms(modes.number, position * ANGSTROM_PER_BOHR, info={**about, "frame": k})
        for k, position in enumerate(displaced(modes, mode, settings))
    ]
    with replacing(path) as temporary:
        write(temporary, frames, format="extxyz")


def write_molden(path: Path | str, modes: NormalModes, title: str) -> None:
    """Frequencies (cm^-1, imaginary ones negative), intensities (km/mol), geometry and normalised Cartesian displacements (bohr).

    Format: G. Schaftenaar, J. H. Noordik, J. Comput. Aided Mol. Des. 14, 123 (2000), and its description on the web pages of
    Molden. [INT] stands before [FR-COORD], where readers that stop after the displacements find it, too.
    """
    symbols = [chemical_symbols[z] for z in modes.number]
    lines = ["[Molden Format]", "[Title]", " ".join(title.split()), "[Atoms] AU"]
    for i, (symbol, z, (x, y, w)) in enumerate(zip(symbols, modes.number, modes.position), 1):
        lines.append(f"{symbol:<3}{i:5d}{z:5d}{x:18.10f}{y:18.10f}{w:18.10f}")
    lines += ["[FREQ]", *(f"{f:12.4f}" for f in modes.frequency_cm1)]
    lines += ["[INT]", *(f"{a:14.6f}" for a in modes.intensity_km_mol)]
    lines += ["[FR-COORD]"]
    lines += [f"{symbol:<3}{x:18.10f}{y:18.10f}{w:18.10f}" for symbol, (x, y, w) in zip(symbols, modes.position)]
    lines += ["[FR-NORM-COORD]"]
    for k, move in enumerate(modes.displacement, 1):
        lines.append(f"vibration {k:5d}")
        lines += [f"{x:15.9f}{y:15.9f}{w:15.9f}" for x, y, w in move]
    write_text(path, "\n".join(lines) + "\n")
