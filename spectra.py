"""Infrared and power spectrum: python spectra.py trajectory=run.h5 [harmonic=dft.h5] [model=folder] [out=folder]."""

import logging

import hydra
import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from densnet.cli import job, run
from densnet.data.harmonic import HarmonicData, read_harmonic
from densnet.errors import ConfigError
from densnet.model.charge_flow import charge_flow
from densnet.model.checkpoint import load_model
from densnet.model.densnet import DensNet
from densnet.model.derivatives import model_harmonic
from densnet.simulation.stored import StoredTrajectory, open_trajectory
from densnet.spectra.assignment_report import write_assignment
from densnet.spectra.eckart import Reference
from densnet.spectra.experiment_report import write_comparison
from densnet.spectra.harmonic import normal_modes_of
from densnet.spectra.infrared import Spectrum, infrared_spectrum
from densnet.spectra.report import write_report
from densnet.spectra.vibrational_density import vibrational_density

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf/spectra", config_name="spectra")
@job
def main(cfg: DictConfig) -> None:
    stored, recipe = open_trajectory(cfg.trajectory), instantiate(cfg.spectrum)
    if stored.ensemble == "langevin":
        log.warning("Langevin friction broadens the lines beyond the window; simulate with nve or nose_hoover for a spectrum")
    step, replicas = stored.time_step, stored.replicas.size
    temperature, dipole = stored.temperature if cfg.temperature is None else cfg.temperature, stored.body_dipole(cfg.memory_mb)
    spectrum = infrared_spectrum(dipole, step, temperature, recipe)
    experiment = instantiate(cfg.measured) if cfg.experiment else None

    reference = matching(cfg.harmonic, stored) if cfg.harmonic else None
    minima = {str(name): matching(path, stored) for name, path in (cfg.minima or {}).items()}
    start = stored.molecule()
    molecule = start if reference is None else start.moved(reference.position)
    network = load_model(cfg.model) if cfg.model else None
    model = model_harmonic(network, molecule) if network else None
    modes = reference and normal_modes_of(reference), model and normal_modes_of(model)

    motion = stored.motion(cfg.memory_mb)
    power = vibrational_density(stored.number, stored.mass, motion, replicas, step, recipe, cfg.power.remove_rigid_motion)

    source = f"{cfg.trajectory}, {stored.ensemble}, model {stored.model_hash}{stored.losses}"
    if network is not None and network.hash != stored.model_hash:
        source += f"; harmonic lines and charge flow of model {network.hash}"
        log.warning(
            "model= is %s, the trajectory was run by %s; expected the same, unless you know why", network.hash, stored.model_hash
        )
    write_report(
        cfg.out, spectrum, source, stored.number, None, *modes,
        instantiate(cfg.peaks), cfg.bands, cfg.title, dipole, power,
    )  # fmt: skip
    if experiment is not None:
        write_comparison(cfg.out, spectrum, experiment, source, *modes, instantiate(cfg.comparison), cfg.title)
    if minima:
        references = [Reference(name, normal_modes_of(data)) for name, data in minima.items()]
        assign(cfg, stored, spectrum, references, network, source, dipole)


def matching(path: str, stored: StoredTrajectory) -> HarmonicData:
    """Harmonic data of the molecule of the trajectory. Raises ConfigError for another one, or another order of atoms."""
    found = read_harmonic(path)
    if not np.array_equal(found.number, stored.number) or found.charge != int(stored.charge):
        raise ConfigError(
            f"{path} is of atoms {found.number.tolist()}, charge {found.charge}; the trajectory of {stored.number.tolist()}, "
            f"{int(stored.charge)}; expected the same order and charge; use one geometry for both"
        )
    return found


def assign(
    cfg: DictConfig, stored: StoredTrajectory, spectrum: Spectrum, references: list[Reference], network: DensNet | None,
    source: str, dipole: np.ndarray | None,
) -> None:  # fmt: skip
    """Which modes of which minimum the bands are; with a model also what their dipole derivatives are made of."""
    flows = []
    if network is not None:
        exact, start = network.double(), stored.molecule()
        flows = [charge_flow(exact, start.moved(r.modes.position), r.modes.mass, r.modes.vector) for r in references]
    position, velocity = next(stored.motion(np.inf))
    # A chain of thermostats acts around a step of velocity Verlet; both make velocities that are a little too small.
    verlet = stored.ensemble in ("nve", "nose_hoover")
    write_assignment(
        cfg.out, spectrum, references, stored.number, stored.mass, position, velocity, dipole,
        source=source, integration_step=stored.integration_step if verlet else None, flows=flows, title=cfg.title,
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
