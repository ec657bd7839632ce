"""python -m densnet.reference molecule=water [stage=all|sample|label|harmonic|fit] [workers=2] [data_dir=data/water]"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import hydra
import numpy as np
from omegaconf import DictConfig

from densnet.cli import run
from densnet.data.geometry import load_geometry
from densnet.data.harmonic import write_harmonic
from densnet.data.labels import Level
from densnet.errors import ConfigError
from densnet.reference.fit_dataset import FitSettings, fit_labels
from densnet.reference.harmonic import HarmonicSettings, compute_harmonic
from densnet.reference.kohn_sham import ScfSettings, check
from densnet.reference.pipeline import Workers, label_frames
from densnet.reference.sampling import (
    Frame,
    SamplingSettings,
    nearest_rmsd,
    read_geometries,
    sample,
    settings_hash,
    write_geometries,
)
from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

STAGES = ("sample", "label", "harmonic", "fit")
Settings = TypeVar("Settings")


@hydra.main(version_base="1.3", config_path="../../conf", config_name="reference")
def main(config: DictConfig) -> None:
    if config.stage not in ("all", *STAGES):
        raise ConfigError(f"stage is {config.stage}; expected all, {', '.join(STAGES)}")
    stages = STAGES if config.stage == "all" else (config.stage,)
    folder = Path(config.data_dir or Path("data") / Path(str(config.molecule)).stem)
    level = _settings(Level, config.level)
    scf = _settings(ScfSettings, config.scf)

    conformers = load_geometry(str(config.molecule), config.charge)
    check(conformers[0], level)
    with Workers(config.workers, scf.threads) as workers:
        if "sample" in stages or "label" in stages:
            frames = sampled(folder / "geometries.h5", conformers, _settings(SamplingSettings, config.sampling), workers)
        if "label" in stages:
            label(folder, frames, level, scf, workers, config.retry_failed)
        if "harmonic" in stages:
            harmonic(folder, conformers, level, scf, config.harmonic, workers)
    if "fit" in stages:
        settings = _settings(FitSettings, config.fit)
        report = fit_labels(folder / "labels.h5", Path(config.basis.path), folder / "fits.h5", settings, config.workers)
        print(
            f"{folder / 'fits.h5'}:", *(f"{field.name} {getattr(report, field.name):.4g}" for field in fields(report)), sep="\n  "
        )


def sampled(path: Path, conformers: list[Molecule], settings: SamplingSettings, workers: Workers) -> list[Frame]:
    """The geometries of this data set: those on disk, or new ones."""
    identity = settings_hash(conformers, settings)
    if not path.exists():
        write_geometries(path, sample(conformers, settings, workers), identity)
    frames = read_geometries(path, identity)
    counts = [sum(frame.split == split for frame in frames) for split in ("train", "test")]
    print(f"{path}: {counts[0]} train and {counts[1]} test geometries")
    if counts[1]:
        rmsd = nearest_rmsd(frames) * ANGSTROM_PER_BOHR
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
    settings = HarmonicSettings(**{field.name: config[field.name] for field in fields(HarmonicSettings)})
    data = compute_harmonic(conformers[config.conformer], level, scf, settings, folder / "spool" / "harmonic", workers)
    write_harmonic(folder / "harmonic.h5", data)
    print(f"{folder / 'harmonic.h5'}: energy {data.energy:.8f} hartree; {data.provenance}")


def _settings(kind: type[Settings], config: DictConfig) -> Settings:
    """The dataclass with these values; tuples for lists, so that it stays hashable and comparable."""
    values: dict[str, Any] = {
        str(k): tuple(v) if not isinstance(v, str) and hasattr(v, "__iter__") else v for k, v in config.items()
    }
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"unknown setting {unknown[0]} for {kind.__name__}; expected {', '.join(sorted(known))}")
    return kind(**values)


if __name__ == "__main__":
    run(main)
