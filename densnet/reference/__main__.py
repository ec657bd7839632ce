"""python -m densnet.reference molecule=water [task=all|sample|label|harmonic|check|fit|derivatives] [workers=2] [data_dir=...]"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import hydra
import numpy as np
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.geometry import load_geometry
from densnet.data.harmonic import write_harmonic
from densnet.data.labels import Level
from densnet.data.similarity import nearest_rmsd
from densnet.errors import ConfigError
from densnet.reference.check import CheckSettings, check_labels, refuse_wrong, table
from densnet.reference.derivative_labels import ChoiceSettings, label_derivatives
from densnet.reference.dipole_derivative import FieldSettings
from densnet.reference.fit_dataset import BasisSettings, FitSettings, check_basis, fit_labels
from densnet.reference.harmonic import HarmonicSettings, compute_harmonic
from densnet.reference.kohn_sham import ScfSettings, check
from densnet.reference.pipeline import Workers, label_frames
from densnet.reference.sampling import (
    Frame,
    SamplingSettings,
    read_geometries,
    sample,
    settings_hash,
    write_geometries,
)
from densnet.reference.wigner import WignerSettings, sample_wigner, wigner_hash
from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

TASKS = ("sample", "label", "harmonic", "check", "fit")
ON_REQUEST = ("derivatives",)  # not among all
OF_LABELS = ("check", "fit", "derivatives")  # need a label file and no geometry
Settings = TypeVar("Settings")


@hydra.main(version_base="1.3", config_path="../../conf", config_name="reference")
@job
def main(config: DictConfig) -> None:
    if config.task not in ("all", *TASKS, *ON_REQUEST):
        raise ConfigError(f"task is {config.task}; expected all, {', '.join((*TASKS, *ON_REQUEST))}")
    tasks = TASKS if config.task == "all" else (config.task,)
    if config.labels is not None and config.task not in OF_LABELS:
        raise ConfigError(
            f"labels={config.labels} with task={config.task}; expected task=check, fit or derivatives, which take a label file"
        )
    # All settings are read before hours of labelling.
    level, scf = _settings(Level, config.level), _settings(ScfSettings, config.scf)
    kind = WignerSettings if "harmonic" in config.sampling.keys() else SamplingSettings  # noqa: SIM118 - a missing value too
    sampling, basis = _settings(kind, config.sampling), _settings(BasisSettings, config.basis)
    fit, checking = _settings(FitSettings, config.fit), _settings(CheckSettings, config.check)
    choice = _settings(ChoiceSettings, config.derivatives, beside=("step", "grid_level", "conv_tol"))
    fields_of = _settings(FieldSettings, config.derivatives, beside=("frames", "seed"))

    if set(tasks) - set(OF_LABELS):
        folder = _folder(config)
        conformers = load_geometry(str(config.molecule), config.charge)
        check(conformers[0], level)
        if "fit" in tasks:
            check_basis(basis, conformers[0].number.tolist())
        with Workers(config.workers, scf.threads) as workers:
            if "sample" in tasks or "label" in tasks:
                frames = sampled(folder / "geometries.h5", conformers, sampling, workers)
            if "label" in tasks:
                label(folder, frames, level, scf, workers, config.retry_failed)
            if "harmonic" in tasks:
                harmonic(folder, conformers, level, scf, config.harmonic, workers)
    labels = Path(config.labels) if config.labels is not None else _folder(config) / "labels.h5"
    if "check" in tasks:
        findings = check_labels(labels, checking)
        print(f"{labels}:\n{table(findings)}")
        refuse_wrong(labels, findings)
    if "derivatives" in tasks:
        out = Path(config.out) if config.out is not None else _folder(config) / "derivatives.h5"
        spool = out.parent / "spool" / "derivatives" if config.out is None else out.with_suffix(".spool")
        with Workers(config.workers, scf.threads) as workers:
            found, missing = label_derivatives(labels, choice, scf, fields_of, out, spool, workers, config.retry_failed)
        print(f"{out}: dipole derivatives of {len(found)} frames, {len(missing)} failed", *missing, sep="\n")
    if "fit" in tasks:
        out = Path(config.out) if config.out is not None else _folder(config) / "fits.h5"
        report = fit_labels(labels, basis, out, fit, config.workers)
        print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
        for field in fields(report):
            value = getattr(report, field.name)
            print(f"  {field.name} {'none' if value is None else format(value, '.4g')}")


def _folder(config: DictConfig) -> Path:
    return Path(config.data_dir or Path("data") / Path(str(config.molecule)).stem)


def sampled(path: Path, conformers: list[Molecule], settings: SamplingSettings | WignerSettings, workers: Workers) -> list[Frame]:
    """The geometries of this data set: those on disk, or new ones."""
    if isinstance(settings, WignerSettings):
        identity = wigner_hash(conformers[0], settings)
    else:
        identity = settings_hash(conformers, settings)
    if not path.exists():
        if isinstance(settings, WignerSettings):
            frames = sample_wigner(conformers[0], settings)
        else:
            frames = sample(conformers, settings, workers)
        write_geometries(path, frames, identity)
    frames = read_geometries(path, identity)
    counts = [sum(frame.split == split for frame in frames) for split in ("train", "test")]
    print(f"{path}: {counts[0]} train and {counts[1]} test geometries")
    if counts[1]:
        test, train = (np.array([f.molecule.position for f in frames if f.split == split]) for split in ("test", "train"))
        rmsd = nearest_rmsd(test, train) * ANGSTROM_PER_BOHR
        print(f"RMSD of a test to its nearest train geometry, angstrom: {rmsd.min():.4f} least, {np.median(rmsd):.4f} median")
    return frames


def label(folder: Path, frames: list[Frame], level: Level, scf: ScfSettings, workers: Workers, retry: bool) -> None:
    """Write labels.h5 and say which frames have no label."""
    labels = label_frames(frames, level, scf, folder / "labels.h5", folder / "spool" / "labels", workers, retry)
    print(f"{folder / 'labels.h5'}: {len(labels)} labels, {len(labels.failures)} failed")
    for failure in labels.failures:
        print(f"no label for {failure.split} frame {failure.source}: {failure.reason}")


def harmonic(
    folder: Path, conformers: list[Molecule], level: Level, scf: ScfSettings, config: DictConfig, workers: Workers
) -> None:
    """Write harmonic.h5."""
    if not 0 <= config.conformer < len(conformers):
        raise ConfigError(f"harmonic.conformer is {config.conformer}; expected 0..{len(conformers) - 1} for this geometry")
    settings = _settings(HarmonicSettings, config, beside=("conformer",))
    data = compute_harmonic(conformers[config.conformer], level, scf, settings, folder / "spool" / "harmonic", workers)
    write_harmonic(folder / "harmonic.h5", data)
    print(f"{folder / 'harmonic.h5'}: energy {data.energy:.8f} hartree; {data.provenance}")


def _settings(kind: type[Settings], config: DictConfig, beside: tuple[str, ...] = ()) -> Settings:
    """The settings with these values, each of the type of its default; beside: keys that belong to something else."""
    defaults = {field.name: field.default for field in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in config.items():
        name = str(key)
        if name in beside:
            continue
        if name not in defaults:
            raise ConfigError(f"unknown setting {name} for {kind.__name__}; expected one of {', '.join(defaults)}")
        try:
            values[name] = _of_type(defaults[name], value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"setting {name} is {value!r}; expected a value like {defaults[name]!r}; correct it") from error
    return kind(**values)


def _of_type(example: Any, value: Any) -> Any:
    if example is None:  # a setting that is off by default; whoever takes it checks it
        return value
    if isinstance(example, tuple):
        if isinstance(value, str):
            raise TypeError
        return tuple(type(example[0])(item) for item in value)
    if isinstance(example, float) and isinstance(value, int):
        return float(value)
    if type(value) is not type(example):
        raise TypeError
    return value


if __name__ == "__main__":
    run(main)
