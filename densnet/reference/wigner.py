"""Geometries for labelling around known minima: the quantum distribution of their harmonic vibrations.

Classical dynamics hardly stretches a stiff bond; a nucleus does so even at 0 K. A normal coordinate of frequency omega has
the Gaussian distribution of variance hbar / (2 omega) coth(hbar omega / 2 k T) (E. Wigner, Phys. Rev. 40, 749 (1932), for
the harmonic oscillator; M. Hillery et al., Phys. Rep. 106, 121 (1984), section 4).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import numpy as np

from densnet.data.harmonic import HarmonicData, read_harmonic
from densnet.errors import ConfigError, StructureError
from densnet.reference.sampling import Frame
from densnet.spectra.harmonic import NormalModes, normal_modes_of
from densnet.structures import Molecule
from densnet.units import BOLTZMANN, CM1_PER_AU

SOFTEST_CM1 = 1.0  # no vibration at all below it, whatever is asked


@dataclass(frozen=True)
class WignerSettings:
    """harmonic: files of the minima, each with an equal share of the frames; train, test: frames wanted; temperature: kelvin,
    0 for the ground state; amplitudes: factors of all displacements, taken in turn; softest_cm1: modes below it (free rotors,
    nearly) are not harmonic and stay where they are.
    """

    harmonic: tuple[str, ...] = ("harmonic.h5",)
    train: int = 120
    test: int = 0
    temperature: float = 0.0
    amplitudes: tuple[float, ...] = (0.5, 1.0)
    softest_cm1: float = 50.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.harmonic:
            raise ConfigError("sampling.harmonic names no file; expected harmonic references, which task=harmonic makes")
        if self.train < 1 or self.test < 0:
            raise ConfigError(f"sampling wants {self.train} train and {self.test} test frames; expected some to train on")
        for name in ("temperature", "softest_cm1", "seed"):
            if not 0 <= getattr(self, name) < inf:
                raise ConfigError(f"sampling.{name} is {getattr(self, name):g}; expected 0 or more")
        if not self.amplitudes or not all(0.0 < factor < inf for factor in self.amplitudes):
            raise ConfigError(f"sampling.amplitudes is {list(self.amplitudes)}; expected positive factors, 1 for the true ones")


def standard_deviation(modes: NormalModes, temperature: float, softest_cm1: float) -> np.ndarray:
    """(n_vib,) of every normal coordinate, bohr times the root of electron masses; temperature in kelvin, 0 allowed.

    0 for modes softer than softest_cm1, also for those that are imaginary by no more.
    Raises StructureError if a mode is imaginary by more: such a distribution does not exist.
    """
    if (lowest := modes.frequency_cm1.min()) < -softest_cm1:
        raise StructureError(f"a mode has {lowest:.1f} cm^-1; expected a minimum; optimise the geometry (task=harmonic)")
    stiff = modes.frequency_cm1 >= max(softest_cm1, SOFTEST_CM1)
    omega = np.where(stiff, modes.frequency_cm1, 1.0) / CM1_PER_AU
    thermal = 1.0 if temperature == 0.0 else 1.0 / np.tanh(omega / (2.0 * BOLTZMANN * temperature))
    return np.where(stiff, np.sqrt(thermal / (2.0 * omega)), 0.0)


def displaced(data: HarmonicData, count: int, settings: WignerSettings, rng: np.random.Generator) -> np.ndarray:
    """(count, N, 3) bohr, at the centre of nuclear charge. Raises StructureError if the reference is no minimum."""
    modes = normal_modes_of(data)
    scale = np.resize(np.asarray(settings.amplitudes), count)[:, None]
    spread = standard_deviation(modes, settings.temperature, settings.softest_cm1)
    normal = scale * spread * rng.standard_normal((count, spread.size))
    positions = data.position + np.einsum("fm,mak->fak", normal, modes.per_coordinate)
    return positions - np.einsum("a,fak->fk", data.number / data.number.sum(), positions)[:, None]


def sample_wigner(molecule: Molecule, settings: WignerSettings) -> list[Frame]:
    """Training and test frames around every minimum, shuffled so that any prefix is a fair sample.

    molecule: the atoms, in their order, and the charge that every file must have. The result depends on the arguments and
    the files alone. Raises StructureError if a file is of other atoms or another charge or is no minimum, DataError if it
    is missing or damaged.
    """
    frames: list[Frame] = []
    for k, name in enumerate(settings.harmonic):
        data = read_harmonic(name)
        if not np.array_equal(data.number, molecule.number) or data.charge != molecule.charge:
            raise StructureError(f"{name} has other atoms, order of atoms or charge than the molecule; expected the same")
        for split, total in (("train", settings.train), ("test", settings.test)):
            count = total * (k + 1) // len(settings.harmonic) - total * k // len(settings.harmonic)
            rng = np.random.default_rng((settings.seed, int(split == "test"), k))
            try:
                positions = displaced(data, count, settings, rng)
            except StructureError as error:
                raise StructureError(f"{name}: {error}") from error
            source = f"{split}_wigner{settings.temperature:g}_{k}"
            for i, position in enumerate(positions):
                try:
                    frames.append(Frame(molecule.moved(position), split, f"{source}:{i}"))
                except StructureError as error:
                    raise StructureError(
                        f"frame {source}:{i} around {name} falls apart ({error}); expected less motion; "
                        "lower sampling.temperature or sampling.amplitudes, or raise sampling.softest_cm1"
                    ) from error
    order = np.random.default_rng((settings.seed, 2)).permutation(len(frames))
    return [frames[k] for k in order]


def wigner_hash(molecule: Molecule, settings: WignerSettings) -> str:
    """Identifies what `sample_wigner` would make: the settings and the content of the files, not their names."""
    for name in settings.harmonic:
        read_harmonic(name)  # says what is wrong with it
    files = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in settings.harmonic]
    text = json.dumps([asdict(settings) | {"harmonic": files}, molecule.number.tolist(), molecule.charge])
    return hashlib.sha256(text.encode()).hexdigest()
