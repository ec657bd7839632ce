"""Infrared spectrum of a trajectory: python spectra.py trajectory=run.h5 [harmonic=dft.h5] [model=folder] [out=folder]."""

import hydra
from hydra.utils import instantiate
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.harmonic import read_harmonic
from densnet.model.checkpoint import load_model
from densnet.model.derivatives import model_harmonic
from densnet.simulation.trajectory import read_trajectory
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.infrared import infrared_spectrum
from densnet.spectra.report import write_report
from densnet.spectra.temperature import vibrational_temperature


@hydra.main(version_base="1.3", config_path="conf/spectra", config_name="spectra")
@job
def main(cfg: DictConfig) -> None:
    recorded = read_trajectory(cfg.trajectory).of_one_molecule()
    trajectory = recorded.survivors()
    temperature = trajectory.temperature if cfg.temperature is None else cfg.temperature
    spectrum = infrared_spectrum(trajectory.dipole, trajectory.time_step, temperature, instantiate(cfg.spectrum))

    reference = read_harmonic(cfg.harmonic) if cfg.harmonic else None
    start = trajectory.molecule()
    molecule = start if reference is None else start.moved(reference.position)
    model = model_harmonic(load_model(cfg.model), molecule) if cfg.model else None

    write_report(
        cfg.out, spectrum, f"{cfg.trajectory}, model {trajectory.model_hash}{recorded.losses}", trajectory.number,
        vibrational_temperature(trajectory.mass, trajectory.position, trajectory.velocity),
        reference and normal_modes_of(reference), model and normal_modes_of(model),
        instantiate(cfg.peaks), cfg.bands, cfg.title,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
