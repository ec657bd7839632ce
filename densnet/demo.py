"""From nothing to an infrared spectrum: the commands a user would type, one after the other, and a report of the figures.

    python -m densnet.demo                                        water, everything made on the spot, in ./demo
    python -m densnet.demo --experiment ethanol --labels file.h5 --out runs/ethanol

Every command is printed before it runs and skipped when its result is already there, so a killed demo goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from densnet.cli import run
from densnet.errors import DataError
from densnet.files import write_json
from densnet.record import write_record
from densnet.steps import ROOT, Step, from_root, run_steps


@dataclass(frozen=True)
class Plan:
    """What differs between molecules: extra settings of every command."""

    reference: tuple[str, ...]
    density: tuple[str, ...]
    energy: tuple[str, ...]
    simulate: tuple[str, ...]
    spectra: tuple[str, ...]


PLANS = {
    "water": Plan(
        reference=("sampling.train=100", "sampling.test=24", "basis=hco_medium"),
        density=("dataset.batch_size=16", "trainer.max_epochs=240", "callbacks.grid.every_n_epochs=80"),
        energy=("dataset.batch_size=16", "trainer.max_epochs=440", "callbacks.infrared.every_n_epochs=100"),
        simulate=("simulation.replicas=12", "simulation.steps=4400", "simulation.equilibration_steps=600"),
        spectra=("peaks.low_cm1=1000", "spectrum=hann", "spectrum.resolution_cm1=16", "title=Water"),
    ),
    "ethanol": Plan(
        reference=(),
        density=("trainer.max_epochs=100",),
        energy=("trainer.max_epochs=80", "callbacks.infrared.every_n_epochs=40"),
        simulate=("simulation.replicas=8", "simulation.steps=8000", "simulation.equilibration_steps=1500"),
        spectra=("peaks.low_cm1=500", "spectrum.resolution_cm1=16", "title=Ethanol"),
    ),
}


@dataclass(frozen=True)
class DensityFigures:
    nmae_percent: float
    fit_floor_percent: float
    dipole_mae_mD: float
    electrons_max_error: float


@dataclass(frozen=True)
class EnergyFigures:
    mae_meV: float
    force_mae_meV_per_A: float


@dataclass(frozen=True)
class DynamicsFigures:
    steps: int
    ms_per_step: float
    drift_meV_per_atom_per_ps: float


@dataclass(frozen=True)
class InfraredFigures:
    """Vibrations only, ascending; harmonic lines of DFT and of the model, peaks of the MD spectrum."""

    dft_harmonic_cm1: list[float]
    model_harmonic_cm1: list[float]
    dft_km_mol: list[float]
    model_km_mol: list[float]
    md_peaks_cm1: list[float]


@dataclass(frozen=True)
class Report:
    """report.json: every figure from held-out frames or from the run itself."""

    density: DensityFigures
    energy: EnergyFigures
    md: DynamicsFigures
    ir: InfraredFigures
    wall_s: float


def collect(out: Path, wall_s: float) -> Report:
    """Put together what the commands wrote below `out`. Raises DataError if one of their files is missing or incomplete."""
    try:
        errors = json.loads((out / "energy-run" / "evaluation.json").read_text())
        dynamics = json.loads((out / "trajectory.json").read_text())
        spectrum = json.loads((out / "ir.json").read_text())
        dft, model = spectrum["dft_harmonic"], spectrum["model_harmonic"]
        return Report(
            DensityFigures(*(errors[k] for k in ("nmae_percent", "fit_floor_percent", "dipole_mae_mD", "electrons_max_error"))),
            EnergyFigures(errors["energy_mae_meV"], errors["force_mae_meV_per_A"]),
            DynamicsFigures(dynamics["steps"], dynamics["ms_per_step"], dynamics["drift_meV_per_atom_per_ps"]),
            InfraredFigures(
                dft["frequency_cm1"],
                model["frequency_cm1"],
                dft["intensity_km_mol"],
                model["intensity_km_mol"],
                spectrum["peaks_cm1"],
            ),
            wall_s,
        )
    except (FileNotFoundError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{out} holds no complete run ({type(error).__name__}: {error}); expected the results of every step; run it again"
        ) from error


def commands(experiment: str, out: Path, labels: Path | None, workers: int) -> list[Step]:
    """The steps, in order."""
    plan, data = PLANS[experiment], out / "data"
    reference = ["-m", "densnet.reference", f"molecule={experiment}", f"data_dir={data}", f"workers={workers}", *plan.reference]
    steps: list[Step] = []
    if labels is None:
        steps += [Step(data / "fits.h5", reference)]
    else:
        steps += [Step(data / "harmonic.h5", [*reference, "task=harmonic"])]
        steps += [Step(data / "fits.h5", [*reference, "task=fit", f"labels={from_root(labels)}"])]
    train = ["train.py", f"experiment={experiment}", f"dataset.path={data / 'fits.h5'}", f"runs_dir={out}", "ckpt_path=auto"]
    steps.append(
        Step(
            out / "density-model/model.json",
            [*train, "stage=density", f"run_dir={out / 'density-run'}", f"export={out / 'density-model'}", *plan.density],
        )
    )
    infrared = ["callbacks=infrared", f"callbacks.infrared.reference={data / 'harmonic.h5'}"]
    energy = [*train, "stage=energy", f"init={out / 'density-model'}", f"run_dir={out / 'energy-run'}", f"export={out / 'model'}"]
    steps.append(Step(out / "energy-run/evaluation.json", [*energy, *infrared, *plan.energy]))
    trajectory = out / "trajectory.h5"
    resume = ["resume=true"] if (ROOT / trajectory).exists() else []
    steps.append(
        Step(
            out / "trajectory.json",
            ["simulate.py", f"model={out / 'model'}", f"molecule={experiment}", f"out={trajectory}", *plan.simulate, *resume],
        )
    )
    sticks = [f"harmonic={data / 'harmonic.h5'}", f"model={out / 'model'}"]
    steps.append(Step(out / "ir.json", ["spectra.py", f"trajectory={trajectory}", *sticks, f"out={out}", *plan.spectra]))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", choices=sorted(PLANS), default="water")
    parser.add_argument("--labels", type=Path, help="a label file that exists already; without it all labels are made")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--record", type=Path, help="also write the report, with hardware and versions beside it, to this file")
    parser.add_argument("--workers", type=int, default=2, help="processes that label")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    steps = commands(arguments.experiment, from_root(out), arguments.labels, arguments.workers)
    spent = run_steps(steps, out / "seconds.json")
    report = collect(out, sum(spent.values()))
    write_json(out / "report.json", asdict(report))
    if arguments.record:
        write_record(arguments.record, report)
    print(f"\n{(out / 'report.json').read_text()}\n\nspectrum: {out / 'ir.png'}\nreport:   {out / 'report.json'}")


if __name__ == "__main__":
    run(main)
