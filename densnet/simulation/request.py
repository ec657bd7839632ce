"""Whether a run may start or continue as asked."""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from densnet.errors import DataError, SimulationError
from densnet.model.compiled import CompiledModel
from densnet.model.in_passes import InPasses
from densnet.simulation.replicas import Replicas, kind, name
from densnet.simulation.resources import out_of_memory
from densnet.simulation.restart import Restart
from densnet.simulation.settings import SimulationSettings
from densnet.structures import Molecule

log = logging.getLogger(__name__)

# Settings that are younger than the oldest restart files, with what those mean.
YOUNG = {"record_charges": False, "atoms_per_pass": 0}
# Settings that a run that continues may change.
FREE = ("steps", "flush_every", "max_energy_jump_ev", "max_temperature")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def check_request(path: Path, resume: bool, overwrite: bool) -> None:
    """Raises SimulationError if nothing can be written to `path`, or something there would be lost unasked."""
    if path.suffix not in (".h5", ".hdf5"):
        raise SimulationError(f"the trajectory is to be called {path}; expected a name that ends in .h5; change out")
    if resume and overwrite:
        raise SimulationError("resume and overwrite are both set; expected at most one; overwrite would lose what resume needs")
    if path.exists() and not (resume or overwrite):
        raise SimulationError(
            f"{path} exists; expected a new file; set resume=true to continue it or overwrite=true to replace it"
        )
    # Files are replaced whole, which the folder alone would allow, even to whom the file is not.
    if path.exists() and not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        raise SimulationError(f"{path} is read-only; expected a file that may be changed; allow it (chmod u+w) or change out")
    path.parent.mkdir(parents=True, exist_ok=True)


def dealt(molecules: list[Molecule], replicas: int) -> list[Molecule]:
    """The molecules of the replicas, in turn. Raises SimulationError if one of several different molecules would get none."""
    start = [molecules[r % len(molecules)] for r in range(replicas)]
    left_out = {kind(molecule): molecule for molecule in molecules[replicas:]}
    for molecule in start:
        left_out.pop(kind(molecule), None)
    if left_out:
        first = name(next(iter(left_out.values())))
        raise SimulationError(
            f"replicas is {replicas} and molecule {first} would get none; expected one for each of {len(molecules)} geometries; "
            "raise replicas or give fewer molecules"
        )
    if len(molecules) > replicas:
        log.warning(
            "replicas is %d: the last %d of %d geometries are not used", replicas, len(molecules) - replicas, len(molecules)
        )
    return start


def check_charges(replicas: Replicas) -> None:
    """Raises SimulationError if charges are to be recorded and the potential has none, before it computes all replicas."""
    if replicas.charges and not replicas.give_charges():
        raise SimulationError(
            "record_charges is true and the potential gives no charges of atoms; expected a trained model (potential=densnet); "
            "set simulation.record_charges=false"
        )


def identity_of(settings: SimulationSettings, replicas: Replicas) -> dict[str, object]:
    """What a run that continues must share."""
    same: dict[str, object] = {key: value for key, value in asdict(settings).items() if key not in FREE}
    names = [name(molecule) for molecule in replicas.molecules]
    molecules = names if replicas.mixed else names[:1]
    # A compiled graph rounds otherwise than the model itself, and passes of another size otherwise too.
    potential, passes = replicas.potential, 0
    if isinstance(potential, InPasses):
        potential, passes = potential.potential, potential.atoms if potential.splits(replicas.batch) else 0
    compiled = "inference" if isinstance(potential, CompiledModel) else "off"
    more = {"molecules": molecules, "model_hash": potential.hash, "compile": compiled, "atoms_per_pass": passes}
    return same | more | {"device": replicas.mass.device.type}


def check_same(point: Restart, identity: dict[str, object], settings: SimulationSettings, path: Path) -> None:
    """Raises SimulationError if the run in `path` is another one or longer than asked, DataError if its frames are gone."""
    for key, value in identity.items():
        found = point.identity.get(key, YOUNG.get(key))
        if found != value:
            was, now = (f"{key}={_short(content)}" for content in (found, value))
            raise SimulationError(
                f"{path} was run with {was}; found {now}; "
                "expected the same to continue it; change it back or start anew with another out"
            )
    if point.step > settings.steps:
        raise SimulationError(f"{path} has run {point.step} steps; expected at most steps={settings.steps}; ask for more steps")
    if point.frames and not path.exists():
        raise DataError(f"{path} is gone but its restart file is not; expected {point.frames} frames; start with another out")


@contextmanager
def failures_in_one_line(path: Path) -> Iterator[None]:
    """Turns a disk that cannot be written and memory that runs out into SimulationError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        reason = " ".join(str(error).split())
        raise SimulationError(
            f"{path} or its restart file cannot be written ({reason}); expected a folder with room that may be changed; "
            "what was recorded is readable; make room and continue with resume=true, or change out"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise SimulationError(
            f"memory ran out during the run of {path}; expected it to suffice as at the start; what was recorded is readable; "
            "close other programs and continue with resume=true, or start anew with fewer replicas"
        ) from error


def _short(content: object) -> str:
    text = str(content)
    return text if len(text) <= 80 else f"{text[:77]}..."
