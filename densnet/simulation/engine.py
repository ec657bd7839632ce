"""Molecular dynamics of many replicas of one or several molecules, moved together through one call of the potential per step."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from densnet.errors import SimulationError
from densnet.files import write_json
from densnet.simulation.health import Health, Watch
from densnet.simulation.integrators import Integrator, LangevinBAOAB, State, VelocityVerlet
from densnet.simulation.nose_hoover import NoseHoover
from densnet.simulation.replicas import Potential, Replicas
from densnet.simulation.request import check_charges, check_request, check_same, dealt, failures_in_one_line, identity_of
from densnet.simulation.resources import check_disk, first_evaluation
from densnet.simulation.restart import Restart, read_restart, restart_path, write_restart
from densnet.simulation.settings import SimulationSettings
from densnet.simulation.summary import summarise
from densnet.simulation.trajectory import Frame, RunSummary, TrajectoryHeader
from densnet.simulation.velocities import kinetic_temperature, maxwell_boltzmann, without_rigid_motion
from densnet.simulation.writer import TrajectoryWriter, block_length, not_in_use
from densnet.structures import Molecule

__all__ = ["Potential", "Replicas", "RunSummary", "SimulationSettings", "simulate"]

log = logging.getLogger(__name__)

# A chain lets the round-off of total momentum grow as its eta wanders; so many steps apart it is taken out.
RESTING_EVERY = 100


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

    Replicas start from thermal velocities without total momentum and angular momentum; several geometries, of one or of
    different molecules, are dealt out to the replicas in turn. Equilibration, if any, is Langevin; NVE and Nose-Hoover production
    after it start with momentum and angular momentum removed again. A replica that leaves the physical region is frozen and
    reported, the others go on. resume continues a run from its last restart point, bit for bit as if it had never stopped, or
    starts it if there is none; steps may then be larger than before. model: where the potential came from.

    Raises SimulationError if the run cannot start, does not fit into memory or on the disk, or has no replica left (what was
    recorded stays readable), DataError for unusable files of a run to continue.
    """
    path, molecules = Path(path), [molecule] if isinstance(molecule, Molecule) else molecule
    with failures_in_one_line(path):
        check_request(path, resume, overwrite)
        replicas = Replicas(potential, dealt(molecules, settings.replicas), device, settings.record_charges)
        return Run(replicas, settings, path, resume, model).to_the_end(progress)


class Run:
    """A simulation under way: what is fixed, and where it stands (state, health, step)."""

    def __init__(self, replicas: Replicas, settings: SimulationSettings, path: Path, resume: bool, model: str) -> None:
        self.replicas, self.settings, self.path = replicas, settings, path
        mass, device = replicas.mass, replicas.mass.device
        self.generator = torch.Generator(device).manual_seed(settings.seed)
        self.thermostat = LangevinBAOAB(settings.time_step, mass, settings.temperature, settings.friction, self.generator)
        # Without total momentum and angular momentum, which NVE and a chain leave at zero.
        resting = 0 if settings.ensemble == "langevin" else 3 + replicas.n_rotations
        self.freedom = 3 * replicas.atoms - resting
        self.producer = self._producer()
        self.watch = Watch(settings, mass, replicas.atoms)
        self.identity = identity_of(settings, replicas)
        if resume and (path.exists() or restart_path(path).exists()):
            point = read_restart(restart_path(path), device)
            check_same(point, self.identity, settings, path)
            self.generator.set_state(point.generator)
        else:
            point = self._start()
        # A file that is continued is copied first and takes the place of the old one then.
        frames = max(settings.steps // settings.record_every + 1 - point.frames, point.frames)
        size = (settings.replicas, replicas.start.shape[1])
        block, charges = block_length(*size, settings.flush_every), settings.record_charges
        check_disk(path, frames, *size, settings.record_every, block, charges)
        if not resume or not restart_path(path).exists():
            with not_in_use(path):
                write_restart(restart_path(path), point)
        self.state, self.health, self.step = point.state, point.health, point.step
        self.known = point.health.alive.cpu().numpy()
        self.started = perf_counter() - point.wall_s
        self.writer = TrajectoryWriter(
            path, self._header(model), settings.replicas, settings.flush_every, point.frames,
            conserved=settings.ensemble != "langevin", charges=charges, frozen_from=point.frozen_from,
        )  # fmt: skip

    def to_the_end(self, progress: bool) -> RunSummary:
        settings, writer = self.settings, self.writer
        # The summary of a shorter run, or of the one that is replaced, must not lie beside this trajectory.
        self.path.with_suffix(".json").unlink(missing_ok=True)
        with writer, self._progress_bar(progress) as bar:
            while True:
                if self.step % settings.record_every == 0:
                    self._record()
                if self.step == settings.steps:
                    break
                if writer.full or (self.step < 0 and self.step % (settings.flush_every * settings.record_every) == 0):
                    self._save()
                self._step()
                if bar.update():
                    bar.set_postfix_str(self._speed(bar.format_dict["rate"] or 0.0), refresh=False)
            self._look(self.health.alive.cpu().numpy())
            self._save()
            summary = summarise(writer, settings, self.replicas.atoms.cpu().numpy(), perf_counter() - self.started)
            writer.finish(summary)
        write_json(self.path.with_suffix(".json"), asdict(summary))
        return summary

    def _step(self) -> None:
        integrator: Integrator = self.thermostat if self.step < 0 else self.producer
        after = integrator.step(self.state, self.replicas)
        self.step += 1
        self.state, self.health = self.watch.step(self.state, after, self.health, self.step)
        if self.step == 0:
            self.state = self._production(self.state)
        elif self.step > 0 and self.settings.ensemble == "nose_hoover" and self.step % RESTING_EVERY == 0:
            self.state = self._resting(self.state)

    def _record(self) -> None:
        """Look at the health of the replicas and append a frame, with one transfer to the host."""
        due = self.step >= 0 and self.writer.frames == self.step // self.settings.record_every
        if not due:
            self._look(self.health.alive.cpu().numpy())
            return
        state, conserved = self.state, self.producer.conserved(self.state)
        kelvin = kinetic_temperature(state.velocity, self.replicas.mass, self.freedom)
        scalars = [state.evaluation.energy, kelvin] + ([] if conserved is None else [conserved])
        columns = [torch.stack(scalars, dim=1), state.evaluation.dipole, state.position.flatten(1), state.velocity.flatten(1)]
        if state.evaluation.charge is not None:
            columns.append(state.evaluation.charge)
        table = torch.where(self.health.alive[:, None], torch.cat(columns, dim=1), torch.nan).cpu().numpy()
        self._look(~np.isnan(table[:, 0]))
        parts = np.split(table, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1)
        values, dipole, position, velocity, *charge = parts
        shape = state.position.shape
        self.writer.append(
            Frame(
                position.reshape(shape),
                velocity.reshape(shape),
                energy=values[:, 0],
                dipole=dipole,
                kinetic_temperature=values[:, 1],
                conserved=None if conserved is None else values[:, 2],
                atomic_charge=charge[0] if charge else None,
            )
        )

    def _look(self, alive: np.ndarray) -> None:
        """Report the replicas that were frozen since the last look; raises SimulationError if none is left."""
        new = np.flatnonzero(self.known & ~alive)
        if not len(new):
            return
        self.known = alive
        self.writer.freeze(new)
        why, left = self.watch.describe(self.health, int(new[-1])), int(alive.sum())
        if not left:
            some = "" if len(alive) == 1 else f"none of {len(alive)} replicas is left, the last: "
            raise SimulationError(f"{some}{why}; frames recorded before are in {self.path}")
        others = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        log.warning("replica %d%s frozen, %d of %d go on: %s", new[-1], others, left, len(alive), why)

    def _save(self) -> None:
        self.writer.flush()
        write_restart(restart_path(self.path), self._point(self.writer.frames, self.writer.frozen_from))

    def _point(self, frames: int, frozen_from: np.ndarray) -> Restart:
        spent = perf_counter() - self.started
        random = self.generator.get_state()
        return Restart(self.state, random, self.step, frames, spent, self.identity, self.health, frozen_from)

    def _start(self) -> Restart:
        """The first restart point: geometries given, thermal velocities. Raises SimulationError if a replica is unwell there."""
        settings, replicas = self.settings, self.replicas
        self.step, self.started = -settings.equilibration_steps, perf_counter()
        check_charges(replicas)
        evaluation = first_evaluation(replicas, replicas.start)
        thermal = maxwell_boltzmann(replicas.mass, settings.temperature, settings.replicas, self.generator)
        self.state = self._resting(State(replicas.start, thermal, evaluation))
        found = self.watch.examine(self.state, self.state, self.step)
        if not found.alive.all():
            raise SimulationError(self.watch.describe(found, int((~found.alive).nonzero()[0, 0])))
        if self.step == 0:
            self.state = self._production(self.state)
        self.health = Health.of(settings.replicas, replicas.mass.device)
        return self._point(0, np.full(settings.replicas, -1))

    def _producer(self) -> VelocityVerlet | LangevinBAOAB | NoseHoover:
        settings, mass = self.settings, self.replicas.mass
        if settings.ensemble == "langevin":
            return self.thermostat
        if settings.ensemble == "nve":
            return VelocityVerlet(settings.time_step, mass)
        if bool((self.freedom < 1).any()):
            raise SimulationError("a single atom has no internal motion; expected molecules for nose_hoover; use langevin")
        return NoseHoover(
            settings.time_step, mass, settings.temperature, settings.thermostat_time, self.freedom, settings.chain_length
        )

    def _production(self, state: State) -> State:
        """The state at step 0 as production starts from it."""
        if self.settings.ensemble != "langevin":
            state = self._resting(state)
        return self.producer.begin(state, self.generator) if isinstance(self.producer, NoseHoover) else state

    def _resting(self, state: State) -> State:
        replicas = self.replicas
        velocity = without_rigid_motion(state.position, state.velocity, replicas.mass, replicas.n_rotations)
        return replace(state, velocity=velocity)

    def _header(self, model: str) -> TrajectoryHeader:
        settings, replicas, mass = self.settings, self.replicas, self.replicas.mass.cpu().numpy()
        number, charge = replicas.number.cpu().numpy(), np.array([molecule.charge for molecule in replicas.molecules])
        return TrajectoryHeader(
            number=number if replicas.mixed else number[0],
            mass=mass if replicas.mixed else mass[0],
            charge=charge if replicas.mixed else int(charge[0]),
            time_step=settings.time_step * settings.record_every,
            integration_step=settings.time_step,
            ensemble=settings.ensemble,
            temperature=float(settings.temperature),
            seed=settings.seed,
            model_hash=replicas.potential.hash,
            model=model,
        )

    def _progress_bar(self, progress: bool) -> tqdm:
        done, total = self.settings.equilibration_steps + self.step, self.settings.equilibration_steps + self.settings.steps
        return tqdm(total=total, initial=done, desc="MD", unit="step", disable=not progress)

    def _speed(self, rate: float) -> str:
        """What the bar says beside the steps per second. rate: steps per second."""
        each, alive = rate * self.settings.time_step_fs * 1e-6 * 86400, self.health.alive
        freedom = 3 * self.replicas.atoms if self.step < 0 else self.freedom
        kelvin: Tensor = kinetic_temperature(self.state.velocity, self.replicas.mass, freedom)[alive].mean()
        count = int(alive.sum())
        return f"{each:.3g} ns/day each, {each * count:.3g} ns/day by {count} replicas, {kelvin.item():.0f} K"
