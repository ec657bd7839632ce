"""A harmonic analysis on paper: table, CSV, JSON, figure, animations, Molden file; of a model, of DFT, or of both."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from densnet.files import write_text
from densnet.spectra.animation import write_animation, write_molden
from densnet.spectra.compare import LineShape
from densnet.spectra.files import write_figure, write_json
from densnet.spectra.harmonic_figure import harmonic_figure
from densnet.spectra.harmonic_summary import Analysis, HarmonicSummary, Mode, ReportSettings, summarise
from densnet.spectra.plot import model_sticks, reference_sticks
from densnet.spectra.thermochemistry import Thermochemistry


def write_harmonic_report(
    folder: Path | str, first: Analysis, second: Analysis | None = None, settings: ReportSettings | None = None
) -> HarmonicSummary:
    """Write modes.csv, modes.json, modes.molden, harmonic.png, harmonic.svg and mode_01.xyz, mode_02.xyz, ... of `first`.

    second: a reference to compare with (also written as reference.molden). Everything is computed before anything is written.
    Raises SpectrumError if the two are different molecules, conformers or isotopologues.
    """
    settings = settings or ReportSettings()
    summary = summarise(first, second, settings)
    both = [first, *([second] if second else [])]
    sticks = [draw(a.modes, f"{a.label}, harmonic") for draw, a in zip((model_sticks, reference_sticks), both)]
    figure = harmonic_figure(sticks, settings.fwhm_cm1, LineShape(settings.shape), settings.title)

    folder = Path(folder)
    write_text(folder / "modes.csv", _csv(summary))
    write_figure(folder / "harmonic", figure)
    for name, analysis in zip(("modes.molden", "reference.molden"), both):
        write_molden(folder / name, analysis.modes, f"{analysis.label}: {analysis.provenance}")
    n_modes = first.modes.frequency_cm1.size
    for k in range(n_modes):
        write_animation(folder / f"mode_{k + 1:02d}.xyz", first.modes, k, settings.animation)
    names = {f"mode_{k + 1:02d}.xyz" for k in range(n_modes)}
    for stale in folder.glob("mode_[0-9]*.xyz"):  # of an earlier, larger molecule
        if stale.name not in names:
            stale.unlink()
    write_json(folder / "modes.json", summary)
    return summary


def table(summary: HarmonicSummary) -> str:
    """Modes, deviations and thermochemistry for a terminal."""
    first, *rest = summary.analyses
    partner = {} if summary.comparison is None else {pair.mode: pair for pair in summary.comparison.pairs}
    width = max(20, *(len(a.label) for a in summary.analyses))
    head = f"{'':>5}{first.label:>{width}}" + "".join(f"{a.label:>{width}}{'deviation':>20}" for a in rest)
    units = f"{'mode':>5}" + f"{'cm^-1':>{width - 10}}{'km/mol':>10}" * len(summary.analyses)
    units += f"{'cm^-1':>10}{'km/mol':>10}" if rest else ""
    rows = [head, f"{units}  {'amu':>6}  moves (share of kinetic energy)"]
    for mode in first.modes:
        row = f"{mode.mode:>5}" + _numbers(mode, width)
        if rest:
            pair = partner.get(mode.mode)
            other = None if pair is None else rest[0].modes[pair.reference_mode - 1]
            row += _numbers(other, width) if other else f"{'none':>{width}}"
            row += f"{pair.deviation_cm1:>+10.1f}{pair.deviation_km_mol:>+10.2f}" if pair else " " * 20
        row += f"  {mode.reduced_mass_dalton:>6.2f}  " + " ".join(f"{name} {share:.2f}" for name, share in mode.atoms.items())
        rows.append(row)
    if found := summary.comparison:
        relative = found.max_intensity_deviation_relative
        rows.append(
            f"frequencies: mean deviation {found.mean_frequency_deviation_cm1:.1f}, largest "
            f"{found.max_frequency_deviation_cm1:.1f} cm^-1; intensities: largest "
            f"{found.max_intensity_deviation_km_mol:.1f} km/mol"
            + ("" if relative is None else f", {100 * relative:.0f} % of lines of at least 1 km/mol")
            + f"; Pearson correlation {found.pearson:.3f}; paired by {found.paired_by}"
        )
    for analysis in summary.analyses:
        rows += [f"{analysis.label}: {analysis.stationary_point}", *_gas(analysis.thermochemistry)]
    return "\n".join(rows)


def _numbers(mode: Mode, width: int) -> str:
    frequency = f"{abs(mode.frequency_cm1):.1f}{'i' if mode.imaginary else ''}"
    return f"{frequency:>{width - 10}}{mode.intensity_km_mol:>10.2f}"


def _gas(gas: Thermochemistry) -> list[str]:
    left = ", ".join(f"{abs(f):.1f}{'i' if f < 0 else ''}" for f in gas.left_out_cm1)
    return [
        f"  ideal gas at {gas.temperature_kelvin:g} K and {gas.pressure_pascal:g} Pa, {gas.geometry}, symmetry number "
        f"{gas.symmetry_number} ({gas.symmetry_number_from}), spin {gas.spin:g}" + (f"; left out: {left} cm^-1" if left else ""),
        f"  E {gas.energy_hartree:.6f} hartree, zero-point energy {gas.zero_point_kJ_mol:.2f} kJ/mol, "
        f"S {gas.entropy_J_mol_K:.2f} J/mol/K, "
        f"H - E {gas.thermal_enthalpy_kJ_mol:.2f} kJ/mol, G - E {gas.thermal_gibbs_kJ_mol:.2f} kJ/mol, "
        f"H {gas.enthalpy_hartree:.6f} hartree, G {gas.gibbs_hartree:.6f} hartree",
    ]


def _csv(summary: HarmonicSummary) -> str:
    first, *rest = summary.analyses
    partner = {} if summary.comparison is None else {pair.mode: pair for pair in summary.comparison.pairs}
    out = io.StringIO()
    for analysis in summary.analyses:
        out.write(f"# {analysis.label}: {' '.join(analysis.provenance.split())}; {analysis.stationary_point}\n")
    out.write(
        "# frequencies: cm^-1, imaginary ones negative; intensities: km/mol; masses: dalton; force constants: mdyn/angstrom;\n"
    )
    out.write("# atoms: share of the kinetic energy, atoms counted from 0\n")
    columns = ["mode", "frequency_cm1", "intensity_km_mol", "imaginary", "reduced_mass_dalton", "force_mdyn_per_angstrom"]
    columns += ["reference_mode", "reference_cm1", "reference_km_mol", "deviation_cm1", "deviation_km_mol"] if rest else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*columns, "atoms"])
    for mode in first.modes:
        row: list[object] = [mode.mode, f"{mode.frequency_cm1:.4f}", f"{mode.intensity_km_mol:.5f}", int(mode.imaginary)]
        row += [f"{mode.reduced_mass_dalton:.5f}", f"{mode.force_constant_mdyn_per_angstrom:.6f}"]
        if rest and (pair := partner.get(mode.mode)):
            other = rest[0].modes[pair.reference_mode - 1]
            row += [other.mode, f"{other.frequency_cm1:.4f}", f"{other.intensity_km_mol:.5f}"]
            row += [f"{pair.deviation_cm1:.4f}", f"{pair.deviation_km_mol:.5f}"]
        elif rest:
            row += [""] * 5
        writer.writerow([*row, " ".join(f"{name}:{share:.3f}" for name, share in mode.atoms.items())])
    return out.getvalue()
