"""Infrared and power spectrum: python spectra.py trajectory=run.h5 [harmonic=dft.h5] [model=folder] [out=folder]."""

import hydra
import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.harmonic import read_harmonic
from densnet.model.charge_flow import charge_flow
from densnet.model.checkpoint import load_model
from densnet.model.derivatives import model_harmonic
from densnet.simulation.stored import StoredTrajectory, open_trajectory
from densnet.spectra.assignment_report import write_assignment
from densnet.spectra.eckart import Reference
from densnet.spectra.experiment_report import write_comparison
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.infrared import Spectrum, infrared_spectrum
from densnet.spectra.report import write_report
from densnet.spectra.vibrational_density import vibrational_density


@hydra.main(version_base="1.3", config_path="conf/spectra", config_name="spectra")
@job
def main(cfg: DictConfig) -> None:
    stored, recipe = open_trajectory(cfg.trajectory), instantiate(cfg.spectrum)
    step, replicas = stored.time_step, stored.replicas.size
    spectrum = infrared_spectrum(stored.dipole, step, stored.temperature if cfg.temperature is None else cfg.temperature, recipe)
    experiment = instantiate(cfg.measured)(cfg.experiment) if cfg.experiment else None

    reference = read_harmonic(cfg.harmonic) if cfg.harmonic else None
    start = stored.molecule()
    molecule = start if reference is None else start.moved(reference.position)
    model = model_harmonic(load_model(cfg.model), molecule) if cfg.model else None
    modes = reference and normal_modes_of(reference), model and normal_modes_of(model)

    motion = stored.motion(cfg.memory_mb)
    power = vibrational_density(stored.number, stored.mass, motion, replicas, step, recipe, cfg.power.remove_rigid_motion)

    source = f"{cfg.trajectory}, model {stored.model_hash}{stored.losses}"
    write_report(
        cfg.out, spectrum, source, stored.number, None, *modes,
        instantiate(cfg.peaks), cfg.bands, cfg.title, stored.dipole, power,
    )  # fmt: skip
    if experiment is not None:
        write_comparison(cfg.out, spectrum, experiment, source, *modes, instantiate(cfg.comparison), cfg.title)
    if cfg.minima:
        assign(cfg, stored, spectrum, source)


def assign(cfg: DictConfig, stored: StoredTrajectory, spectrum: Spectrum, source: str) -> None:
    """Which modes of which minimum the bands are; with a model also what their dipole derivatives are made of."""
    minima = {str(name): read_harmonic(path) for name, path in cfg.minima.items()}
    references = [Reference(name, normal_modes_of(data)) for name, data in minima.items()]
    flows = []
    if cfg.model:
        exact, start = load_model(cfg.model).double(), stored.molecule()
        flows = [charge_flow(exact, start.moved(r.modes.position), r.modes.mass, r.modes.vector) for r in references]
    position, velocity = next(stored.motion(np.inf))
    write_assignment(
        cfg.out, spectrum, references, stored.number, stored.mass, position, velocity, stored.dipole,
        source=source, integration_step=stored.integration_step if stored.ensemble == "nve" else None,
        flows=flows, title=cfg.title,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
