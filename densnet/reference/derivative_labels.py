"""Dipole derivatives of some frames of a label file, in worker processes; a finished frame is on disk and stays there."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from densnet.data.dipole_derivatives import DipoleDerivatives, write_dipole_derivatives
from densnet.data.labels import Labels, Level, read_labels
from densnet.errors import ConfigError, DataError
from densnet.files import replacing, write_json
from densnet.reference.dipole_derivative import FieldSettings, dipole_derivative
from densnet.reference.kohn_sham import PROGRAM, NoLabel, ScfSettings
from densnet.reference.pipeline import Workers
from densnet.structures import Molecule


@dataclass(frozen=True)
class ChoiceSettings:
    """Which frames get derivatives. frames: how many training frames, null for all; seed: of their choice and directions.

    The order of choice depends on the seed alone: asked for more, a repeated call goes on where the last one ended.
    """

    frames: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        whole = all(
            isinstance(x, int) and not isinstance(x, bool) for x in (self.seed, 1 if self.frames is None else self.frames)
        )
        if not whole or self.seed < 0:
            raise ConfigError(
                f"derivatives.frames is {self.frames!r}, derivatives.seed {self.seed!r}; expected whole numbers, a seed from 0"
            )


@dataclass(frozen=True)
class DerivativeTask:
    """One frame: what dipole_derivative takes, and where the result goes."""

    molecule: Molecule
    level: Level
    scf: ScfSettings
    settings: FieldSettings
    direction: np.ndarray
    labels: Path
    frame: int
    path: Path


def compute_and_store(task: DerivativeTask) -> None:
    """Compute one frame from the stored density matrix; store the result, whole or not at all, without pickle."""
    guess = read_labels(task.labels).density_matrix(task.frame)
    result = dipole_derivative(task.molecule, task.level, task.scf, task.settings, task.direction, guess)
    with replacing(task.path) as temporary, temporary.open("wb") as file:
        if isinstance(result, NoLabel):
            np.savez(file, reason=np.array(result.reason))
        else:
            np.savez(file, derivative=result)


def _stored(path: Path) -> np.ndarray | NoLabel | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return NoLabel(str(file["reason"])) if "reason" in file else file["derivative"]
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
        return None


def chosen(labels: Labels, choice: ChoiceSettings) -> tuple[np.ndarray, np.ndarray]:
    """Frames (F,) and unit vectors (F, 3), uniform on the sphere."""
    train = labels.indices("train")
    if choice.frames is not None and not 0 < choice.frames <= train.size:
        raise ConfigError(f"derivatives.frames is {choice.frames}; expected 1 to {train.size}, the training frames; lower it")
    frames = np.random.default_rng((choice.seed, 0)).permutation(train)[: choice.frames]
    direction = np.array([np.random.default_rng((choice.seed, 1 + int(f))).normal(size=3) for f in frames])
    return frames, direction / np.linalg.norm(direction, axis=1, keepdims=True)


def label_derivatives(
    labels_path: Path,
    choice: ChoiceSettings,
    scf: ScfSettings,
    settings: FieldSettings,
    out: Path,
    spool: Path,
    workers: Workers,
    retry: bool = False,
) -> tuple[DipoleDerivatives, list[str]]:
    """Write `out` with the derivatives of the chosen frames; (its contents, why frames are missing).

    A repeated call computes what is missing, with `retry` also what failed before. Raises ConfigError if the spool folder belongs
    to other settings or labels, DataError for a bad label file or if no frame could be computed.
    """
    labels = read_labels(labels_path)
    frames, directions = chosen(labels, choice)
    _open_spool(spool, labels, choice, settings)
    paths = [spool / f"{f:06d}.npz" for f in frames]
    found = [_stored(path) for path in paths]
    todo = [k for k, result in enumerate(found) if result is None or (retry and isinstance(result, NoLabel))]
    tasks = [
        DerivativeTask(
            labels.frame(int(frames[k])), labels.level, scf, settings, directions[k], labels_path, int(frames[k]), paths[k]
        )
        for k in todo
    ]
    for _ in workers.run(compute_and_store, tasks, "derivatives", "frame", done=len(paths) - len(todo)) if tasks else ():
        continue
    results = [_stored(path) for path in paths]
    missing = [f"frame {f}: {r.reason}" for f, r in zip(frames, results) if isinstance(r, NoLabel)]
    good = sorted((int(f), u, r) for f, u, r in zip(frames, directions, results) if isinstance(r, np.ndarray))
    if not good:
        raise DataError(f"no frame of {labels_path} has dipole derivatives ({missing[0]}); change the settings of the fields")
    data = DipoleDerivatives.of(
        labels.level, [labels.frame(f) for f, _, _ in good], [u for _, u, _ in good], [r for *_, r in good]
    )
    write_dipole_derivatives(out, data, PROGRAM, json.dumps(asdict(settings) | asdict(choice)))
    return data, missing


def _open_spool(spool: Path, labels: Labels, choice: ChoiceSettings, settings: FieldSettings) -> None:
    """Make the folder, or make sure that it belongs to these labels, seed and fields; the number of frames may grow."""
    geometries = hashlib.sha256(labels.number.tobytes() + labels.position.tobytes() + labels.charge.tobytes()).hexdigest()
    identity = {"level": asdict(labels.level), "fields": asdict(settings), "seed": choice.seed, "geometries": geometries}
    path = spool / "identity.json"
    if not path.exists():
        write_json(path, identity)
        return
    try:
        found = json.loads(path.read_text())
        changed = [key for key, value in identity.items() if found.get(key) != value]
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged; expected the identity of the results beside it; delete {spool}") from error
    if changed:
        raise ConfigError(f"{spool} has derivatives with other {', '.join(changed)}; use another data_dir or delete that folder")
