"""Spectra on disk: CSV, JSON, PNG and SVG. Every file appears whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from densnet.files import write_bytes
from densnet.spectra.infrared import Spectrum
from densnet.spectra.uncertainty import ErrorMethod
from densnet.units import FS_PER_AU, PS_PER_AU

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Settings:
    """How a spectrum was made; written into every file that holds it.

    estimator: fourier or maximum entropy, with the memory and order of the process; error: replicas, blocks or none;
    bootstrap_*: None unless error_method is bootstrap.
    """

    window: str
    resolution_cm1: float
    zero_padding: int
    quantum_correction: str
    quantum_correction_formula: str
    estimator: str
    temperature_kelvin: float
    time_step_fs: float
    length_ps: float
    frames: int
    replicas: int
    error: str
    error_method: str
    confidence: float
    bootstrap_resamples: int | None
    bootstrap_seed: int | None

    @staticmethod
    def of(spectrum: Spectrum) -> Settings:
        recipe = spectrum.recipe
        bootstrap = recipe.uncertainty.method is ErrorMethod.BOOTSTRAP
        return Settings(
            window=recipe.window.kind.value,
            resolution_cm1=recipe.window.resolution_cm1,
            zero_padding=recipe.zero_padding,
            quantum_correction=recipe.quantum_correction.value,
            quantum_correction_formula=recipe.quantum_correction.formula,
            estimator=_estimator(spectrum),
            temperature_kelvin=spectrum.temperature,
            time_step_fs=spectrum.time_step * FS_PER_AU,
            length_ps=(spectrum.n_frames - 1) * spectrum.time_step * PS_PER_AU,
            frames=spectrum.n_frames,
            replicas=spectrum.n_replicas,
            error=spectrum.error_origin.value,
            error_method=recipe.uncertainty.method.value,
            confidence=recipe.uncertainty.confidence,
            bootstrap_resamples=recipe.uncertainty.resamples if bootstrap else None,
            bootstrap_seed=recipe.uncertainty.seed if bootstrap else None,
        )


def _estimator(spectrum: Spectrum) -> str:
    burg = spectrum.recipe.maximum_entropy
    if burg is None:
        return "fourier"
    step = burg.stride(spectrum.time_step, spectrum.recipe.max_cm1) * spectrum.time_step
    return (
        f"maximum entropy (Burg), memory {burg.memory * FS_PER_AU:g} fs: order {burg.order(step)} "
        f"over frames {step * FS_PER_AU:.4g} fs apart"
    )


def write_csv(path: Path, spectrum: Spectrum, source: str) -> None:
    """Eight columns in the units of their headings, settings in lines that start with #."""
    lines = ["# infrared spectrum of one molecule, absolute", f"# source: {source}"]
    lines += [f"# {name}: {value}" for name, value in asdict(Settings.of(spectrum)).items() if value is not None]
    lines += [
        "# epsilon: decadic molar absorptivity, L/mol/cm; density: integrated absorption per wavenumber, km/mol per cm^-1;",
        "# cross_section: napierian, m^2 per molecule; errors: one standard error of the mean, nan if there is none;",
        "# epsilon_lower, epsilon_upper: interval at the stated confidence, point by point",
        "wavenumber_cm1,epsilon_L_mol_cm,epsilon_error,epsilon_lower,epsilon_upper,density_km_mol_cm,density_error,cross_section_m2",
    ]
    columns = [
        spectrum.wavenumber_cm1,
        spectrum.epsilon,
        spectrum.epsilon_error,
        *spectrum.interval,
        spectrum.density_km_mol,
        spectrum.density_error_km_mol,
        spectrum.cross_section,
    ]
    write_table(path, lines, columns)


def write_table(path: Path, lines: Sequence[str], columns: Sequence[np.ndarray]) -> None:
    """Columns (K,) of numbers as CSV below these lines, the last of which holds the headings."""
    buffer = io.StringIO()
    np.savetxt(buffer, np.column_stack(columns), fmt="%.8g", delimiter=",")
    write_bytes(path, ("\n".join(lines) + "\n" + buffer.getvalue()).encode())


def write_json(path: Path, record: DataclassInstance) -> None:
    """A dataclass of plain values. Numbers that are not finite have no place in JSON: make them None first."""
    write_bytes(path, (json.dumps(asdict(record), indent=2, allow_nan=False) + "\n").encode())


def write_figure(path: Path, figure: Figure) -> None:
    """`path` with the suffixes .png and .svg."""
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        # Without the date the same spectrum gives the same file.
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        write_bytes(path.with_suffix(f".{kind}"), buffer.getvalue())
