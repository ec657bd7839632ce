"""Labelling in worker processes that may be killed at any moment: a finished frame is on disk and stays there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from densnet.data.labels import Failure, Label, Labels, Level, write_labels
from densnet.errors import ConfigError, DataError, DensnetError
from densnet.files import replacing, write_json
from densnet.reference.kohn_sham import PROGRAM, NoLabel, ScfSettings, compute_label
from densnet.reference.sampling import Frame
from densnet.structures import Molecule

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Task = TypeVar("Task")
Result = TypeVar("Result")


class Workers:
    """Processes that compute tasks side by side, `threads` threads each; use it in a with statement.

    They end by themselves when the parent is killed: each holds nothing but its own end of a pipe to the parent.
    """

    def __init__(self, n: int, threads: int = 1) -> None:
        if n < 1 or threads < 1:
            raise ConfigError(f"{n} workers with {threads} threads each cannot work; expected at least 1 of both")
        self._n, self._threads = n, threads
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
            process.join()
        self._processes = {}

    def _start(self) -> None:
        context = get_context("spawn")
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(self._threads)))  # read when a worker loads its libraries
        try:
            for _ in range(self._n):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._processes[ours] = process
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def run(
        self, function: Callable[[Task], Result], tasks: Sequence[Task], title: str | None, unit: str, done: int = 0
    ) -> Iterator[tuple[int, Result]]:
        """(index of the task, result) as they finish; a progress bar with the time left, unless title is None.

        function: of module level. done: what the bar counts as finished beforehand. A DensnetError raised by the function
        is raised here; ConfigError if a worker dies.
        """
        if not self._processes:
            self._start()
        queue = iter(enumerate(tasks))
        busy: dict[Connection, int] = {}
        with tqdm(total=done + len(tasks), initial=done, desc=title, unit=unit, disable=title is None, smoothing=0.1) as bar:

            def feed(connection: Connection) -> None:
                for index, task in queue:
                    connection.send((function, task))
                    busy[connection] = index
                    return

            for connection in self._processes:
                feed(connection)
            while busy:
                for connection in wait(list(busy)):
                    assert isinstance(connection, Connection)
                    index = busy.pop(connection)
                    try:
                        result, error = connection.recv()
                    except (EOFError, ConnectionResetError) as lost:
                        self._processes[connection].join()
                        raise ConfigError(
                            f"a worker died with exit code {self._processes[connection].exitcode} at {unit} {index}; what was "
                            "finished is kept; expected enough memory: lower workers, then start again"
                        ) from lost
                    if error is not None:
                        raise error
                    feed(connection)
                    bar.update()
                    yield index, result


def _work(connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    while True:
        try:
            function, task = connection.recv()
        except EOFError:
            return
        try:
            answer = function(task), None
        except DensnetError as error:
            answer = None, error
        except Exception:
            answer = None, RuntimeError(f"in a worker process:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except BrokenPipeError:
            return


@dataclass(frozen=True)
class LabelTask:
    """One calculation whose result, a label or the reason why there is none, goes to a file."""

    molecule: Molecule
    level: Level
    settings: ScfSettings
    path: Path


def compute_and_store(task: LabelTask) -> None:
    """Label one molecule and store the result, whole or not at all, without pickle."""
    result = compute_label(task.molecule, task.level, task.settings)
    with replacing(task.path) as temporary, temporary.open("wb") as file:
        if isinstance(result, NoLabel):
            np.savez(file, reason=np.array(result.reason))
        else:
            np.savez(file, **asdict(result))


def stored(path: Path) -> Label | NoLabel | None:
    """What `compute_and_store` left there; None if there is nothing, or a file that a crashed disk cut short."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if "reason" in file:
                return NoLabel(str(file["reason"]))
            return Label(float(file["energy"]), file["force"], file["dipole"], file["quadrupole"], file["density_matrix"])
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
        return None


def open_spool(spool: Path, level: Level, molecules: Sequence[Molecule]) -> None:
    """Make the folder, or make sure that it belongs to this level of theory and these geometries.

    Raises ConfigError if it belongs to others: their labels must not be mixed. DataError if the folder is damaged.
    """
    geometries = hashlib.sha256()
    for molecule in molecules:
        geometries.update(np.int64(molecule.charge).tobytes() + molecule.number.tobytes() + molecule.position.tobytes())
    identity = {"level": asdict(level), "geometries": geometries.hexdigest()}
    path = spool / "identity.json"
    if path.exists():
        try:
            found = json.loads(path.read_text())
            changed = [key for key, value in identity["level"].items() if found["level"].get(key) != value]
            changed += ["geometries"] if found["geometries"] != identity["geometries"] else []
        except (ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"{path} is damaged; expected the identity of the labels beside it; delete the folder {spool}"
            ) from error
        if changed:
            raise ConfigError(f"{spool} has frames with other {', '.join(changed)}; use another data_dir or delete that folder")
        return
    write_json(path, identity)


def compute_labels(
    molecules: Sequence[Molecule],
    level: Level,
    settings: ScfSettings,
    spool: Path,
    workers: Workers,
    title: str,
    retry: bool = False,
) -> list[Label | NoLabel]:
    """Label every molecule that has no result in the spool folder yet; results in the order of the molecules.

    retry: compute those again that failed before. Raises ConfigError if the folder belongs to other settings.
    """
    open_spool(spool, level, molecules)
    paths = [spool / f"{k:06d}.npz" for k in range(len(molecules))]
    finished = [stored(path) for path in paths]
    todo = [k for k, result in enumerate(finished) if result is None or (retry and isinstance(result, NoLabel))]
    tasks = [LabelTask(molecules[k], level, settings, paths[k]) for k in todo]
    for _ in workers.run(compute_and_store, tasks, title, "frame", done=len(molecules) - len(todo)) if tasks else ():
        continue
    results: list[Label | NoLabel] = []
    for path in paths:
        result = stored(path)
        if result is None:
            raise DataError(
                f"{path} vanished or is damaged; expected the label just stored there; check the disk and start again"
            )
        results.append(result)
    return results


def label_frames(
    frames: Sequence[Frame], level: Level, settings: ScfSettings, out: Path, spool: Path, workers: Workers, retry: bool = False
) -> Labels:
    """Label all frames and write the label file `out`, frames in order, those without a label apart with their reasons.

    A repeated call computes what is missing and writes the same file. Raises DataError if no frame has a label.
    """
    results = compute_labels([frame.molecule for frame in frames], level, settings, spool, workers, "labelling", retry)
    pairs = list(zip(frames, results))
    good = [(frame, result) for frame, result in pairs if isinstance(result, Label)]
    failures = [Failure(f.molecule, f.split, f.source, result.reason) for f, result in pairs if isinstance(result, NoLabel)]
    labels = Labels.of(
        molecules=[frame.molecule for frame, _ in good],
        labels=[label for _, label in good],
        split=[frame.split for frame, _ in good],
        source=[frame.source for frame, _ in good],
        level=level,
        program=PROGRAM,
        failures=failures,
    )
    write_labels(out, labels)
    if not good:
        raise DataError(f"no frame could be labelled ({failures[0].reason}); reasons are in {out}; change the level of theory")
    return labels
