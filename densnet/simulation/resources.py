"""Memory and disk: a run that cannot fit is told so, and what would, before it starts."""

from __future__ import annotations

import ctypes
import shutil
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from densnet.errors import SimulationError
from densnet.model.in_passes import InPasses, even_parts
from densnet.simulation.integrators import Evaluation
from densnet.simulation.replicas import Replicas

# One pass over this many atoms takes far less than any machine has; larger batches are measured on such a small one first.
SMALL = 256
MARGIN = 0.9  # of the free memory that a run may plan for
GROUPS = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
          ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"))  # fmt: skip


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation of torch or numpy failed, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")
    )


def first_evaluation(replicas: Replicas, position: Tensor) -> Evaluation:
    """The potential at the start, (R, N, 3) bohr. Raises SimulationError if so many replicas do not fit into the memory.

    Linux promises the CPU more memory than it has and kills who takes it, so a large batch is first judged from a small one.
    """
    few = replicas.first(max(16, SMALL // position.shape[1]))
    together = _together(replicas)
    if together > _together(few):
        each, free = _bytes_per_atom(few), free_memory(position.device)
        if each is not None and free is not None and each * together > MARGIN * free:
            needs = f"about {each * together / 1e9:.3g} GB of memory, {free / 1e9:.3g} GB are free"
            raise SimulationError(_too_many(replicas, needs, int(MARGIN * free / each)))
    try:
        return replicas(position)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:120]
    # Outside the handler: there the failed pass would still hold its memory.
    raise SimulationError(_too_many(replicas, f"more memory than there is ({reason})", _that_fit(replicas)))


def _together(replicas: Replicas) -> int:
    """How many atoms are in memory together: those of the largest pass of the potential."""
    potential, sizes = replicas.potential, replicas.atoms.tolist()
    if isinstance(potential, InPasses) and potential.splits(replicas.batch):
        return max(atoms.stop - atoms.start for _, atoms in even_parts(sizes, potential.atoms))
    return sum(sizes)


def check_disk(path: Path, frames: int, replicas: int, atoms: int, record_every: int, block: int, charges: bool = False) -> None:
    """Raises SimulationError if so many more frames, in blocks of so many, do not fit on the disk of `path`."""
    each = 8 * replicas * ((7 if charges else 6) * atoms + 6)
    free, need = shutil.disk_usage(path.parent).free, -(-frames // block) * block * each
    if need > free:
        raise SimulationError(
            f"{path} will take {need / 1e9:.3g} GB, {free / 1e9:.3g} GB are free; expected room for {frames} frames; "
            f"free some, or record only every {-(-need * record_every // max(free, 1))} steps, or simulate {free // each} frames"
        )


def free_memory(device: torch.device) -> float | None:
    """Bytes that can still be allocated; None where the system does not tell."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + cached)
    if device.type != "cpu":
        return None
    found = []
    with suppress(OSError, ValueError, StopIteration):  # not Linux
        found.append(1024 * _line(Path("/proc/meminfo"), "MemAvailable:"))
    for limit, used in GROUPS:
        with suppress(OSError, ValueError):  # no such control group, or one without a limit ("max")
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return float(min(found)) if found else None


def _bytes_per_atom(few: Replicas) -> float | None:
    """Memory of one pass, by atom; None where it cannot be measured."""
    device = few.mass.device
    try:
        least = few.first(2)
        least(least.start)  # what stays for good (libraries, compiled code) is not counted
        if device.type == "cuda":
            before = torch.cuda.memory_allocated(device)
            torch.cuda.reset_peak_memory_stats(device)
            few(few.start)
            return (torch.cuda.max_memory_allocated(device) - before) / _together(few)
        if device.type == "cpu":
            status = Path("/proc/self/status")
            _give_back()
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): sets the peak back to what is resident now
            before = _line(status, "VmRSS:")
            few(few.start)
            return 1024.0 * (_line(status, "VmHWM:") - before) / _together(few)
    except (OSError, ValueError, StopIteration):  # not Linux, or not allowed
        return None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    return None


def _give_back() -> None:
    """Return freed memory to the system: what the process keeps (densnet.allocator) would be used again and hide the need."""
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _line(path: Path, name: str) -> int:
    """The number behind this name."""
    return int(next(line.split()[1] for line in path.read_text().splitlines() if line.startswith(name)))


def _that_fit(replicas: Replicas) -> int:
    """The atoms of the first half, quarter, ... of one pass that can be evaluated; 0 if not even one replica can."""
    if isinstance(replicas.potential, InPasses):
        size = _together(replicas)
        pass_, whole = even_parts(replicas.atoms.tolist(), size)[0][0], replicas.potential.potential
        replicas = Replicas(whole, replicas.molecules[: pass_.stop], replicas.mass.device, replicas.charges)
    count = len(replicas) // 2
    while count:
        few = replicas.first(count)
        try:
            few(few.start)
            return int(few.atoms.sum())
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        count //= 2
    return 0


def _too_many(replicas: Replicas, needs: str, fit: int) -> str:
    """fit: atoms in one pass."""
    where = "" if replicas.mass.device.type == "cpu" else f" on {replicas.mass.device}"
    count = fit * len(replicas) // int(replicas.atoms.sum())
    if isinstance(replicas.potential, InPasses):  # passes that fit take any number of replicas
        who, most, fewer = f"of which {_together(replicas)} atoms at a time", f"{fit} atoms", f"atoms_per_pass={fit}"
    else:
        who, most, fewer = "which", str(count), f"simulation.replicas={count}"
    advice = f"set {fewer}" if count else "use a smaller molecule or more memory"
    return f"replicas is {len(replicas)}, {who} need {needs}{where}; expected at most about {most}; {advice}"
