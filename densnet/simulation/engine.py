"""Molecular dynamics of many replicas of one molecule, moved together through one call of the potential per step."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from ase.data import atomic_masses
from torch import Tensor
from tqdm import tqdm

from densnet.errors import DataError, SimulationError
from densnet.files import write_json
from densnet.simulation.integrators import Evaluation, Integrator, LangevinBAOAB, State, VelocityVerlet
from densnet.simulation.restart import Restart, read_restart, restart_path, write_restart
from densnet.simulation.settings import SimulationSettings
from densnet.simulation.trajectory import RunSummary, TrajectoryHeader
from densnet.simulation.velocities import kinetic_energy, maxwell_boltzmann, rotations, without_rigid_motion
from densnet.simulation.writer import TrajectoryWriter, not_in_use
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON, EV_PER_HARTREE, MEV_PER_HARTREE, PS_PER_AU

__all__ = ["Potential", "RunSummary", "SimulationSettings", "simulate"]


class Potential(Protocol):
    """What moves the atoms; DensNet is one. hash names it for good: a run continues only on the same one."""

    hash: str

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction: ...


class Replicas:
    """The potential of R copies of a molecule as a function of position (R, N, 3)."""

    def __init__(self, potential: Potential, start: list[Molecule], device: torch.device | str) -> None:
        self.potential, self.batch = potential, Molecules.of(start, device)

    def __call__(self, position: Tensor) -> Evaluation:
        prediction = self.potential.predict(self.batch.at(position.reshape(-1, 3)), forces=True)
        assert prediction.force is not None
        return Evaluation(prediction.energy.double(), prediction.force.double().view_as(position), prediction.dipole.double())


def simulate(
    potential: Potential,
    molecule: Molecule | list[Molecule],
    settings: SimulationSettings,
    path: str | Path,
    progress: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    model: str = "",
    device: torch.device | str = "cpu",
) -> RunSummary:
    """Run the simulation; write the trajectory to `path` (.h5), beside it a summary (.json) and the restart point (.restart.npz).

    Replicas start from thermal velocities without total momentum and angular momentum; several geometries of the molecule
    are dealt out to the replicas in turn. Equilibration, if any, is Langevin; NVE production after it starts with momentum
    and angular momentum removed again. resume continues a run from its last restart point, bit for bit as if it had never
    stopped, or starts it if there is none; steps may then be larger than before. model: where the potential came from.

    Raises SimulationError if the run cannot start or leaves the physical region (what was recorded stays readable),
    DataError for unusable files of a run to continue.
    """
    path, molecules = Path(path), [molecule] if isinstance(molecule, Molecule) else molecule
    _check_request(path, molecules, resume, overwrite)
    mass_dalton = atomic_masses[molecules[0].number]
    mass = torch.as_tensor(mass_dalton * ELECTRON_MASS_PER_DALTON, dtype=torch.float64, device=device)
    evaluate = Replicas(potential, [molecules[r % len(molecules)] for r in range(settings.replicas)], device)
    generator = torch.Generator(device).manual_seed(settings.seed)
    identity = _identity(settings, molecules[0], potential, device)
    n_rotations = rotations(torch.as_tensor(molecules[0].position, device=device), mass)

    if resume and (path.exists() or restart_path(path).exists()):
        point = read_restart(restart_path(path), device)
        _check_same(point, identity, settings, path)
        generator.set_state(point.generator)
    else:
        position = evaluate.batch.position.reshape(settings.replicas, -1, 3)
        thermal = maxwell_boltzmann(mass, settings.temperature, settings.replicas, generator)
        velocity = without_rigid_motion(position, thermal, mass, n_rotations)
        state = State(position, velocity, evaluate(position))
        _check_state(state, state, mass, settings, -settings.equilibration_steps, path)
        point = Restart(state, generator.get_state(), -settings.equilibration_steps, 0, 0.0, identity)
        with not_in_use(path):
            write_restart(restart_path(path), point)

    header = TrajectoryHeader(
        number=molecules[0].number,
        mass=mass.cpu().numpy(),
        charge=molecules[0].charge,
        time_step=settings.time_step * settings.record_every,
        integration_step=settings.time_step,
        ensemble=settings.ensemble,
        temperature=float(settings.temperature),
        seed=settings.seed,
        model_hash=potential.hash,
        model=model,
    )
    thermostat = LangevinBAOAB(settings.time_step, mass, settings.temperature, settings.friction, generator)
    producer: Integrator = thermostat if settings.ensemble == "langevin" else VelocityVerlet(settings.time_step, mass)
    freedom = max(3 * len(mass) - (3 + n_rotations if settings.ensemble == "nve" else 0), 1)
    step, state, started = point.step, point.state, perf_counter() - point.wall_s

    with (
        TrajectoryWriter(path, header, settings.replicas, settings.flush_every, keep=point.frames) as writer,
        _progress_bar(settings, step, progress) as bar,
    ):

        def save() -> None:
            writer.flush()
            now = Restart(state, generator.get_state(), step, writer.frames, perf_counter() - started, identity)
            write_restart(restart_path(path), now)

        while True:
            if step >= 0 and step % settings.record_every == 0 and writer.frames == step // settings.record_every:
                evaluation = state.evaluation
                frame = (state.position, state.velocity, evaluation.energy, evaluation.dipole)
                writer.append(*(tensor.cpu().numpy() for tensor in frame))
            if step == settings.steps:
                break
            if writer.full or (step < 0 and step % (settings.flush_every * settings.record_every) == 0):
                save()
            before, state = state, (thermostat if step < 0 else producer).step(state, evaluate)
            step += 1
            _check_state(before, state, mass, settings, step, path)
            if step == 0 and settings.ensemble == "nve":
                velocity = without_rigid_motion(state.position, state.velocity, mass, n_rotations)
                state = State(state.position, velocity, state.evaluation)
            if bar.update():
                speed = (bar.format_dict["rate"] or 0.0) * settings.time_step_fs * 1e-6 * 86400
                moving = freedom if step >= 0 else 3 * len(mass)
                kelvin = _temperature(state.velocity, mass, moving).mean().item()
                bar.set_postfix_str(f"{speed:.3g} ns/day, {kelvin:.0f} K", refresh=False)
        save()
        summary = _summary(writer, settings, header, freedom, perf_counter() - started)
        writer.finish(summary)
    write_json(path.with_suffix(".json"), asdict(summary))
    return summary


def _check_request(path: Path, molecules: list[Molecule], resume: bool, overwrite: bool) -> None:
    if path.suffix not in (".h5", ".hdf5"):
        raise SimulationError(f"the trajectory is to be called {path}; expected a name that ends in .h5; change out")
    if resume and overwrite:
        raise SimulationError("resume and overwrite are both set; expected at most one; overwrite would lose what resume needs")
    if path.exists() and not (resume or overwrite):
        raise SimulationError(
            f"{path} exists; expected a new file; set resume=true to continue it or overwrite=true to replace it"
        )
    first = molecules[0]
    for index, other in enumerate(molecules):
        if not np.array_equal(other.number, first.number) or other.charge != first.charge:
            raise SimulationError(
                f"geometry {index} differs from geometry 0 in atoms or charge; expected one molecule; split the file"
            )
    path.parent.mkdir(parents=True, exist_ok=True)


def _identity(settings: SimulationSettings, molecule: Molecule, potential: Potential, device: object) -> dict[str, object]:
    free = ("steps", "flush_every", "max_energy_jump_ev", "max_temperature")
    same: dict[str, object] = {name: value for name, value in asdict(settings).items() if name not in free}
    more = {"number": molecule.number.tolist(), "charge": molecule.charge, "model_hash": potential.hash}
    return same | more | {"device": torch.device(str(device)).type}


def _check_same(point: Restart, identity: dict[str, object], settings: SimulationSettings, path: Path) -> None:
    for name, value in identity.items():
        if point.identity.get(name) != value:
            raise SimulationError(
                f"{path} was run with {name}={point.identity.get(name)}; found {name}={value}; "
                "expected the same to continue it; change it back or start anew with another out"
            )
    if point.step > settings.steps:
        raise SimulationError(f"{path} has run {point.step} steps; expected at most steps={settings.steps}; ask for more steps")
    if point.frames and not path.exists():
        raise DataError(f"{path} is gone but its restart file is not; expected {point.frames} frames; start with another out")


def _check_state(before: State, now: State, mass: Tensor, settings: SimulationSettings, step: int, path: Path) -> None:
    """Stop on what dynamics cannot recover from. A force that is not finite shows in the temperature."""
    jump = (now.evaluation.energy - before.evaluation.energy).abs()
    kelvin = _temperature(now.velocity, mass, 3 * len(mass))
    finite = now.evaluation.dipole.sum(dim=-1).isfinite()
    # Comparisons with NaN are false, so that a replica has to prove that it is healthy.
    good = (jump <= settings.energy_jump_limit) & (kelvin <= settings.temperature_limit) & finite
    if not good.all():
        r = int((~good).nonzero()[0, 0])
        raise SimulationError(
            f"step {step}, replica {r}: energy {now.evaluation.energy[r].item():.6g} hartree, changed by "
            f"{jump[r].item() * EV_PER_HARTREE:.3g} eV in one step, temperature {kelvin[r].item():.3g} K"
            f"{'' if finite[r] else ', dipole not finite'}; expected at most {settings.max_energy_jump_ev:g} eV and "
            f"{settings.temperature_limit:g} K; try a time step below {settings.time_step_fs:g} fs, "
            f"or a start nearer to the training geometries; frames recorded before are in {path}"
        )


def _temperature(velocity: Tensor, mass: Tensor, freedom: int) -> Tensor:
    return 2.0 * kinetic_energy(velocity, mass) / (freedom * BOLTZMANN)


def _progress_bar(settings: SimulationSettings, step: int, progress: bool) -> tqdm:
    total = settings.equilibration_steps + settings.steps
    return tqdm(total=total, initial=settings.equilibration_steps + step, desc="MD", unit="step", disable=not progress)


def _summary(
    writer: TrajectoryWriter, settings: SimulationSettings, header: TrajectoryHeader, freedom: int, wall_s: float
) -> RunSummary:
    potential, kinetic = writer.energies()
    total = (potential + kinetic).mean(axis=1)
    drift = None
    if settings.ensemble == "nve" and len(total) > 1:
        time = np.arange(len(total)) * header.time_step
        # The mean is taken out first: total energies of 1e2 hartree would cost the digits that a drift has.
        slope = np.polyfit(time - time.mean(), total - total.mean(), 1)[0]
        drift = float(slope * MEV_PER_HARTREE / PS_PER_AU / header.number.size)
    return RunSummary(
        steps=settings.steps,
        ms_per_step=1e3 * wall_s / (settings.steps + settings.equilibration_steps),
        mean_temperature=float(2.0 * kinetic.mean() / (freedom * BOLTZMANN)),
        drift_meV_per_atom_per_ps=drift,
        wall_s=wall_s,
    )
