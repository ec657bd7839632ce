"""Harmonic analysis: python -m densnet.harmonic [model=folder] [molecule=ethanol] [harmonic=dft.h5] [out=folder]."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
import numpy as np
from ase.data import chemical_symbols
from hydra.utils import instantiate
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.geometry import load_geometry
from densnet.data.harmonic import HarmonicData, read_harmonic, write_harmonic
from densnet.data.isotopes import Masses, with_masses
from densnet.errors import ConfigError
from densnet.model.checkpoint import load_model
from densnet.model.derivatives import model_harmonic
from densnet.record import write_record
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.harmonic_report import table, write_harmonic_report
from densnet.spectra.harmonic_summary import Analysis
from densnet.structures import Molecule

log = logging.getLogger(__name__)
OF_A_MODEL = "densnet model"  # how the provenance of model_harmonic begins


@hydra.main(version_base="1.3", config_path="../conf/harmonic", config_name="harmonic")
@job
def main(cfg: DictConfig) -> None:
    if cfg.model is None and cfg.harmonic is None:
        raise ConfigError("neither model nor harmonic is given; expected at least one; add model=folder or harmonic=dft.h5")
    if cfg.model is None and cfg.molecule is not None:
        raise ConfigError(f"molecule={cfg.molecule} without a model; expected model=folder with it; harmonic= has its own")
    folder = Path(cfg.out)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"out is {folder}, a file; expected a folder; change out")
    result = folder / "harmonic.h5"
    if cfg.harmonic is not None and result.exists() and result.samefile(cfg.harmonic):
        raise ConfigError(f"the result would replace {cfg.harmonic}; expected another folder than that of harmonic=; change out")
    masses = None if cfg.masses is None else Masses(cfg.masses)
    if not isinstance(cfg.isotopes, DictConfig | None):
        raise ConfigError(f"isotopes is {cfg.isotopes}; expected atoms and isotopes, quoted for the shell: 'isotopes={{8: D}}'")
    isotopes = None if cfg.isotopes is None else dict(cfg.isotopes)
    report = instantiate(cfg.report)

    found: list[HarmonicData] = []
    reference = read_harmonic(cfg.harmonic) if cfg.harmonic else None
    if cfg.model is not None:
        start = starting_geometry(cfg, reference)
        found.append(model_harmonic(load_model(cfg.model, cfg.device), start, instantiate(cfg.optimisation)))
    if reference is not None:
        found.append(reference)
    found = [with_masses(data, masses, isotopes) for data in found]
    labels = ["Model" if data.provenance.startswith(OF_A_MODEL) else "DFT" for data in found]
    if len(set(labels)) < len(found):
        labels[1] = "Reference"
    analyses = [Analysis(label, normal_modes_of(data), data.energy, data.provenance) for label, data in zip(labels, found)]
    summary = write_harmonic_report(folder, *analyses, settings=report)
    write_harmonic(result, found[0])
    if cfg.record is not None:
        write_record(Path(cfg.record), summary)
    print(table(summary))
    if "saddle" in summary.analyses[0].stationary_point and cfg.model is not None and not cfg.optimisation.follow:
        print("optimisation.follow=true goes on from there to a minimum")
    print(f"{folder}: harmonic.h5, modes.csv, modes.json, modes.molden, mode_01.xyz ..., harmonic.png, harmonic.svg")


def starting_geometry(cfg: DictConfig, reference: HarmonicData | None) -> Molecule:
    """The frame asked for, or the geometry of the reference."""
    if cfg.molecule is None:
        if reference is None:
            raise ConfigError(
                "no value for molecule; expected a name, a geometry file, or harmonic= to start from; add molecule=..."
            )
        return Molecule(reference.number, reference.position, reference.charge)
    frames = load_geometry(str(cfg.molecule), cfg.charge)
    if not 0 <= cfg.frame < len(frames):
        raise ConfigError(f"frame is {cfg.frame}; expected 0..{len(frames) - 1}: {cfg.molecule} has so many geometries")
    if len(frames) > 1:
        log.info("%s has %d geometries; frame=%d is taken", cfg.molecule, len(frames), cfg.frame)
    start = frames[cfg.frame]
    if reference is not None and not (np.array_equal(start.number, reference.number) and start.charge == reference.charge):
        names = [f"{''.join(chemical_symbols[z] for z in m.number)} of charge {m.charge}" for m in (start, reference)]
        raise ConfigError(f"{cfg.molecule} is {names[0]}, {cfg.harmonic} {names[1]}; expected the same atoms in the same order")
    return start


if __name__ == "__main__":
    run(main)
