"""Times of several programs taken in turns, so that a change of the machine's load falls on all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densnet.errors import ConfigError
from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

PEERS = Path(__file__).parent / "peers.py"
# One thread, and the allocator that densnet's programs set for themselves (densnet.allocator).
ALIKE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(2**28),
}
Clock = Callable[[int], list[float]]  # so many calls -> milliseconds of each
# wall: what a user waits. cpu: time of the process alone; the same for one thread on an idle machine, and steady on a busy one.
TIMERS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of the rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(float(np.median(values)), float(min(values)), float(max(values)))


@dataclass(frozen=True)
class Entry:
    """One contestant. ms: per call; ratio: its time over that of the first contestant in the same round."""

    name: str
    ms: Spread
    ratio: Spread


def clock(work: Callable[[], object], timer: str) -> Clock:
    """Times of `work` in this process by one of TIMERS; two calls go before, not counted."""
    now = TIMERS[timer]
    for _ in range(2):
        work()

    def times(calls: int) -> list[float]:
        found = []
        for _ in range(calls):
            start = now()
            work()
            found.append(1e3 * (now() - start))
        return found

    return times


def contest(contestants: dict[str, Clock], rounds: int, seconds: float) -> tuple[Entry, ...]:
    """Everybody in turns: in a round, the median of as many calls (1 to 50) as take each about `seconds`."""
    calls = {name: int(np.clip(1e3 * seconds / min(times(2)), 1, 50)) for name, times in contestants.items()}
    table = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, times in contestants.items():
            table[name].append(float(np.median(times(calls[name]))))
    first = next(iter(table.values()))
    return tuple(Entry(name, Spread.of(found), Spread.of([a / b for a, b in zip(found, first)])) for name, found in table.items())


class Peer:
    """benchmarks/peers.py in the environment of another potential, one process for all its requests."""

    def __init__(self, kind: str, python: str) -> None:
        self.kind = kind
        try:
            self._process = subprocess.Popen(
                [python, str(PEERS), kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **ALIKE},
            )
        except OSError as error:
            raise ConfigError(
                f"{python} does not start ({error.strerror}); expected the Python of an environment with {kind}; "
                "see the docstring of benchmarks/peers.py"
            ) from error
        self.parameters = 0

    def clock(self, task: str, molecules: Sequence[Molecule], timer: str) -> Clock:
        """Times of a task ("evaluate", "compiled", "train") on these molecules, over there, by one of TIMERS."""
        request = {
            "timer": timer,
            "task": task,
            "number": [m.number.tolist() for m in molecules],
            "position": [(m.position * ANGSTROM_PER_BOHR).tolist() for m in molecules],
        }

        def times(calls: int) -> list[float]:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            try:
                self._process.stdin.write(json.dumps({**request, "calls": calls}) + "\n")
                self._process.stdin.flush()
                answer = json.loads(self._process.stdout.readline())
            except (BrokenPipeError, json.JSONDecodeError) as error:
                raise ConfigError(
                    f"{self.kind} gave no answer to {task!r}; expected times; run `{' '.join(map(str, self._process.args))}` "  # type: ignore[arg-type]
                    "and send it the request to see why"
                ) from error
            self.parameters = answer["parameters"]
            return answer["ms"]

        return times

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def peers(nequip_python: str | None, mace_python: str | None) -> list[Peer]:
    """Those whose interpreter was given."""
    return [Peer(kind, python) for kind, python in (("nequip", nequip_python), ("mace", mace_python)) if python]
