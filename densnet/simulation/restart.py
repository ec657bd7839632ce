"""The restart point of a simulation: everything that decides its future, in one npz beside the trajectory, replaced whole."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densnet.errors import DataError
from densnet.files import replacing
from densnet.simulation.integrators import Evaluation, State

SCHEMA, VERSION = "densnet/restart", 1
KEYS = ("position", "velocity", "energy", "force", "dipole", "generator", "step", "frames", "wall_s", "identity")


@dataclass(frozen=True)
class Restart:
    """Where a run stands.

    generator: state of the random numbers, uint8; step: of production, negative in equilibration; frames: of the trajectory
    that belong to this point; wall_s: seconds spent so far; identity: settings that a run that continues must share, by name.
    """

    state: State
    generator: Tensor
    step: int
    frames: int
    wall_s: float
    identity: dict[str, object]


def restart_path(trajectory: Path) -> Path:
    """Where the restart point of this trajectory lies."""
    return trajectory.with_suffix(".restart.npz")


def write_restart(path: Path, restart: Restart) -> None:
    """Replace the file at `path`."""
    state = restart.state
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            schema=SCHEMA,
            version=VERSION,
            position=state.position.cpu().numpy(),
            velocity=state.velocity.cpu().numpy(),
            energy=state.evaluation.energy.cpu().numpy(),
            force=state.evaluation.force.cpu().numpy(),
            dipole=state.evaluation.dipole.cpu().numpy(),
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
            data = {key: file[key] for key in KEYS}
            identity = json.loads(str(data["identity"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read ({reason}); expected a restart file; start anew with overwrite=true") from error
    if (schema, version) != (SCHEMA, VERSION):
        raise DataError(f"{path} is {schema} version {version}; expected {SCHEMA} version {VERSION}; start anew")
    position, velocity, energy, force, dipole = (torch.as_tensor(data[key]).to(device) for key in KEYS[:5])
    return Restart(
        state=State(position, velocity, Evaluation(energy, force, dipole)),
        generator=torch.as_tensor(data["generator"]),
        step=int(data["step"]),
        frames=int(data["frames"]),
        wall_s=float(data["wall_s"]),
        identity=identity,
    )
