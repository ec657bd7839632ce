"""What a harmonic analysis says: modes, kind of stationary point, thermochemistry, deviations from a reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from densnet.errors import ConfigError, SpectrumError
from densnet.spectra.animation import AnimationSettings, amplitude
from densnet.spectra.compare import HarmonicComparison, LineShape, compare_modes
from densnet.spectra.harmonic import NormalModes
from densnet.spectra.thermochemistry import GasSettings, Thermochemistry, ideal_gas
from densnet.units import ANGSTROM_PER_BOHR, BOHR_SI, ELECTRON_MASS_PER_DALTON, HARTREE_SI

MDYN_PER_ANGSTROM_PER_AU = HARTREE_SI / BOHR_SI**2 / 100.0  # 1 mdyn/angstrom is 100 N/m
SAME_CONFORMER = 0.3  # angstrom, root mean square deviation after superposition; conformers differ by more
SHARE = 0.1  # atoms with less of the kinetic energy of a mode are not named


@dataclass(frozen=True)
class Analysis:
    """Modes with what is known beside them. label: for tables and legends; energy: hartree; provenance: how it was made."""

    label: str
    modes: NormalModes
    energy: float
    provenance: str


@dataclass(frozen=True)
class ReportSettings:
    """fwhm_cm1, shape (gaussian or lorentzian): lines of the figure and of the Pearson correlation."""

    fwhm_cm1: float = 10.0
    shape: str = LineShape.LORENTZIAN.value
    thermochemistry: GasSettings = field(default_factory=GasSettings)
    animation: AnimationSettings = field(default_factory=AnimationSettings)
    title: str = ""

    def __post_init__(self) -> None:
        LineShape(self.shape)
        if not self.fwhm_cm1 > 0:
            raise ConfigError(f"line width is {self.fwhm_cm1} cm^-1; expected a positive number; 5 to 20 suits a figure")


@dataclass(frozen=True)
class Mode:
    """One vibration. mode: counted from 1; frequency_cm1: imaginary ones negative; atoms: shares of the kinetic energy."""

    mode: int
    frequency_cm1: float
    intensity_km_mol: float
    imaginary: bool
    reduced_mass_dalton: float
    force_constant_mdyn_per_angstrom: float
    amplitude_angstrom: float
    amplitude_is_capped: bool
    atoms: dict[str, float]


@dataclass(frozen=True)
class AnalysedMolecule:
    """One analysis as modes.json has it. Atoms count from 0."""

    label: str
    provenance: str
    stationary_point: str
    symbols: list[str]
    mass_dalton: list[float]
    position_angstrom: list[list[float]]
    linear: bool
    rigid_motions_projected: int
    modes: list[Mode]
    thermochemistry: Thermochemistry


@dataclass(frozen=True)
class Pair:
    """A mode of the first analysis beside its partner in the second; deviations are first minus second."""

    mode: int
    reference_mode: int
    deviation_cm1: float
    deviation_km_mol: float


@dataclass(frozen=True)
class Comparison:
    paired_by: str
    mean_frequency_deviation_cm1: float
    max_frequency_deviation_cm1: float
    max_intensity_deviation_km_mol: float
    max_intensity_deviation_relative: float | None
    outside_intensity_bar: int
    pearson: float
    pairs: list[Pair]


@dataclass(frozen=True)
class HarmonicSummary:
    """What modes.json holds. outside_intensity_bar: modes off by more than 3 km/mol and more than 10 %."""

    analyses: list[AnalysedMolecule]
    comparison: Comparison | None
    settings: ReportSettings


def summarise(first: Analysis, second: Analysis | None, settings: ReportSettings) -> HarmonicSummary:
    """Modes, thermochemistry and, with a second analysis, the deviations of the first from it.

    Raises SpectrumError if the two are different molecules, conformers or isotopologues.
    """
    comparison = None
    if second is not None:
        check_comparable(first, second)
        found = compare_modes(first.modes, second.modes, settings.fwhm_cm1, LineShape(settings.shape))
        comparison = _comparison(found, second.modes)
    both = [first, *([second] if second else [])]
    return HarmonicSummary([_molecule(analysis, settings) for analysis in both], comparison, settings)


def check_comparable(first: Analysis, second: Analysis) -> None:
    """Raises SpectrumError unless both are of the same atoms in the same order, the same masses and the same conformer."""
    a, b = first.modes, second.modes
    if not np.array_equal(a.number, b.number):
        names = ("".join(chemical_symbols[z] for z in m.number) for m in (a, b))
        found = " and ".join(f"{x.label} of {name}" for x, name in zip((first, second), names))
        raise SpectrumError(f"{found}; expected the same molecule in the same atom order; give the matching one")
    if np.abs(a.mass / b.mass - 1.0).max() > 1e-4:
        i = int(np.argmax(np.abs(a.mass / b.mass - 1.0)))
        masses = " and ".join(f"{m.mass[i] / ELECTRON_MASS_PER_DALTON:.4f} in {x.label}" for x, m in ((first, a), (second, b)))
        raise SpectrumError(f"atom {i} weighs {masses} (dalton); expected the same isotopes; set masses= or isotopes= for both")
    off, mirrored = (rmsd(a.position * sign, b.position) * ANGSTROM_PER_BOHR for sign in (1.0, -1.0))
    if off > SAME_CONFORMER:
        hint = "it is the mirror image of it; mirror the start" if mirrored < 0.5 * off else "start from that conformer"
        raise SpectrumError(
            f"{first.label} is {off:.2f} angstrom (RMSD) from the geometry of {second.label}; expected the same conformer; {hint}"
        )


def rmsd(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square deviation of two geometries (N, 3) after the best shift and proper rotation (W. Kabsch, 1976)."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    left, size, right = np.linalg.svd(a.T @ b)
    overlap = size[0] + size[1] + np.sign(np.linalg.det(left) * np.linalg.det(right)) * size[2]
    return float(np.sqrt(max(0.0, (a**2).sum() + (b**2).sum() - 2.0 * overlap) / len(a)))


def stationary_point(modes: NormalModes) -> str:
    """What kind of point the geometry is, in words."""
    imaginary = np.flatnonzero(modes.imaginary)
    if imaginary.size == 0:
        return "minimum: all frequencies are real"
    what = "; ".join(
        f"mode {k + 1} at {-modes.frequency_cm1[k]:.1f}i cm^-1 moves {', '.join(_movers(modes, int(k))) or 'many atoms'}"
        for k in imaginary
    )
    return f"saddle point of order {imaginary.size}, not a minimum: {what}"


def _movers(modes: NormalModes, mode: int) -> dict[str, float]:
    """Atoms that carry most of the mode's kinetic energy, most first; atoms count from 0."""
    share = modes.share[mode]
    order = [i for i in np.argsort(-share, kind="stable") if share[i] >= SHARE][:4]
    return {f"{chemical_symbols[modes.number[i]]}{i}": round(float(share[i]), 3) for i in order}


def _molecule(analysis: Analysis, settings: ReportSettings) -> AnalysedMolecule:
    modes = analysis.modes
    listed = []
    for k in range(modes.frequency_cm1.size):
        size = amplitude(modes, k, settings.animation)
        listed.append(
            Mode(
                mode=k + 1,
                frequency_cm1=float(modes.frequency_cm1[k]),
                intensity_km_mol=float(modes.intensity_km_mol[k]),
                imaginary=bool(modes.imaginary[k]),
                reduced_mass_dalton=float(modes.reduced_mass[k]) / ELECTRON_MASS_PER_DALTON,
                force_constant_mdyn_per_angstrom=float(modes.force_constant[k]) * MDYN_PER_ANGSTROM_PER_AU,
                amplitude_angstrom=size.angstrom,
                amplitude_is_capped=size.capped,
                atoms=_movers(modes, k),
            )
        )
    return AnalysedMolecule(
        label=analysis.label,
        provenance=analysis.provenance,
        stationary_point=stationary_point(modes),
        symbols=[chemical_symbols[z] for z in modes.number],
        mass_dalton=(modes.mass / ELECTRON_MASS_PER_DALTON).tolist(),
        position_angstrom=(modes.position * ANGSTROM_PER_BOHR).tolist(),
        linear=modes.linear,
        rigid_motions_projected=modes.n_rigid,
        modes=listed,
        thermochemistry=ideal_gas(modes, analysis.energy, settings.thermochemistry),
    )


def _comparison(found: HarmonicComparison, reference: NormalModes) -> Comparison:
    off, weight = np.abs(found.intensity_deviation_km_mol), reference.intensity_km_mol[: found.match.size]
    relative = found.max_intensity_relative
    return Comparison(
        paired_by=found.matching.value,
        mean_frequency_deviation_cm1=found.mean_frequency_deviation_cm1,
        max_frequency_deviation_cm1=found.max_frequency_deviation_cm1,
        max_intensity_deviation_km_mol=found.max_intensity_deviation_km_mol,
        max_intensity_deviation_relative=None if np.isnan(relative) else relative,
        outside_intensity_bar=int(((off > 3.0) & (off > 0.1 * weight)).sum()),
        pearson=found.pearson,
        pairs=[
            Pair(int(m) + 1, k + 1, float(found.frequency_deviation_cm1[k]), float(found.intensity_deviation_km_mol[k]))
            for k, m in enumerate(found.match)
        ],
    )
