"""The restart point of a simulation: everything that decides its future, in one npz beside the trajectory, replaced whole."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densnet.errors import DataError
from densnet.files import replacing
from densnet.simulation.health import Health
from densnet.simulation.integrators import Chain, Evaluation, State

SCHEMA, VERSION, READABLE = "densnet/restart", 3, (2, 3)
STATE = ("position", "velocity", "energy", "force", "dipole", "chain_position", "chain_velocity")
HEALTH = ("alive", "frozen_step", "frozen_jump", "frozen_kelvin")
KEYS = (*STATE, *HEALTH, "frozen_from", "generator", "step", "frames", "wall_s", "identity")


@dataclass(frozen=True)
class Restart:
    """Where a run stands.

    generator: state of the random numbers, uint8; step: of production, negative in equilibration; frames: of the trajectory
    that belong to this point; wall_s: seconds spent so far; identity: settings that a run that continues must share, by name;
    health: the replicas that are frozen; frozen_from: (R,), the frame from which on each is, -1 if it is not.
    """

    state: State
    generator: Tensor
    step: int
    frames: int
    wall_s: float
    identity: dict[str, object]
    health: Health
    frozen_from: np.ndarray


def restart_path(trajectory: Path) -> Path:
    """Where the restart point of this trajectory lies."""
    return trajectory.with_suffix(".restart.npz")


def write_restart(path: Path, restart: Restart) -> None:
    """Replace the file at `path`."""
    state, health = restart.state, restart.health
    nothing = state.position.new_zeros((len(health.alive), 0))
    chain = state.chain or Chain(nothing, nothing)
    charge = nothing if state.evaluation.charge is None else state.evaluation.charge
    evaluation = (state.evaluation.energy, state.evaluation.force, state.evaluation.dipole)
    tensors = (state.position, state.velocity, *evaluation, chain.position, chain.velocity)
    tensors += (health.alive, health.step, health.jump, health.kelvin)
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in zip((*STATE, *HEALTH), tensors, strict=True)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            schema=SCHEMA,
            version=VERSION,
            **arrays,
            charge=charge.cpu().numpy(),
            frozen_from=restart.frozen_from,
            generator=restart.generator.numpy(),
            step=restart.step,
            frames=restart.frames,
            wall_s=restart.wall_s,
            identity=json.dumps(restart.identity),
        )


def read_restart(path: Path, device: torch.device | str = "cpu") -> Restart:
    """The restart point, its state on `device`. Raises DataError if the file is missing, truncated or foreign."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the restart file of the trajectory; start anew with overwrite=true")
    try:
        with np.load(path, allow_pickle=False) as file:
            schema, version = str(file["schema"]), int(file["version"])
            if schema != SCHEMA or version not in READABLE:
                raise DataError(
                    f"{path} is {schema} version {version}; expected {SCHEMA} version {' or '.join(map(str, READABLE))}; "
                    "continue with the densnet release that wrote it, or start anew"
                )
            data = {key: file[key] for key in KEYS}
            charge = file["charge"] if version > 2 else np.empty(0)
            identity = json.loads(str(data["identity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}); expected a restart file; start anew with overwrite=true") from error
    position, velocity, energy, force, dipole, *links = (torch.as_tensor(data[key]).to(device) for key in STATE)
    chain = Chain(*links) if links[0].numel() else None
    charges = torch.as_tensor(charge).to(device) if charge.size else None
    return Restart(
        state=State(position, velocity, Evaluation(energy, force, dipole, charges), chain),
        generator=torch.as_tensor(data["generator"]),
        step=int(data["step"]),
        frames=int(data["frames"]),
        wall_s=float(data["wall_s"]),
        identity=identity,
        health=Health(*(torch.as_tensor(data[key]).to(device) for key in HEALTH)),
        frozen_from=data["frozen_from"],
    )
