"""Runs that fit neither memory nor disk, and starts that make no sense: one line each, and what would do."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from simulation_potentials import WATER, Flowing, Springs, prediction, settings

from densnet.errors import BasisError, SimulationError, StructureError
from densnet.model.in_passes import InPasses
from densnet.simulation import engine, resources, writer
from densnet.simulation.engine import simulate
from densnet.simulation.replicas import Replicas
from densnet.simulation.trajectory import read_trajectory
from densnet.structures import Molecule, Molecules, Prediction

Usage = namedtuple("Usage", "total used free")
ALLOCATOR = RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9")


def run(path, potential=None, resume=False, **changes):
    return simulate(potential or Springs(WATER), WATER, settings(**changes), path, progress=False, resume=resume)


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


@dataclass
class Greedy(Springs):
    """Springs that take some memory per replica while they are evaluated, for good when `after` calls have been made."""

    megabytes: float = 1.0

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        ballast = torch.ones(molecules.n, round(self.megabytes * 2**17), dtype=torch.float64)
        exact = super().predict(molecules, forces)
        return Prediction(exact.energy + 0.0 * ballast.sum(dim=1), exact.force, exact.dipole, exact.density)


@dataclass
class PerAtom(Springs):
    """No forces; one megabyte per atom."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        ballast = torch.ones(len(molecules.number), 2**17, dtype=torch.float64)
        nothing = torch.zeros_like(molecules.position)
        return prediction(molecules.sum(ballast[:, 0]), nothing, molecules.sum(nothing))


@dataclass
class Full(Springs):
    """Springs for which torch's allocator has room for `room` replicas, or none from one call on."""

    room: int = 10**9
    from_call: int = 10**9
    error: Exception = ALLOCATOR

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        if molecules.n > self.room or self.calls >= self.from_call:
            raise self.error
        return super().predict(molecules, forces)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_memory_is_measured_before_it_is_taken(tmp_path, monkeypatch):
    """8 MB a replica and 1 GB free: some 110 fit; the batch of 2000 is never tried."""
    potential = Greedy(WATER, megabytes=8.0)
    monkeypatch.setattr(resources, "free_memory", lambda device: 1e9)
    with pytest.raises(SimulationError, match=r"replicas is 2000, which need about .* 1 GB are free; expected at most") as caught:
        run(tmp_path / "run.h5", potential, replicas=2000)
    found = re.search(r"set simulation\.replicas=(\d+)$", one_line(caught))
    assert found
    assert 80 < int(found[1]) < 140
    assert potential.calls == 2
    assert not list(tmp_path.iterdir())
    assert run(tmp_path / "run.h5", Greedy(WATER, megabytes=1.0), replicas=100, steps=1).frozen_replicas == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_passes_take_the_memory_of_one(tmp_path, monkeypatch):
    """16 GB of replicas in 1 GB, in passes of 20 waters; passes of 500 are told what would fit."""
    monkeypatch.setattr(resources, "free_memory", lambda device: 1e9)
    greedy = Greedy(WATER, megabytes=8.0)
    assert run(tmp_path / "run.h5", InPasses(greedy, 60), replicas=2000, steps=1).frozen_replicas == 0
    message = (
        r"is 2000, of which 1500 atoms at a time need about .*; expected at most about (\d+) atoms; set atoms_per_pass=(\d+)$"
    )
    with pytest.raises(SimulationError, match=message) as caught:
        run(tmp_path / "other.h5", InPasses(greedy, 1500), replicas=2000)
    found = re.search(message, one_line(caught))
    assert found
    assert 3 * 80 < int(found[1]) == int(found[2]) < 3 * 140


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_memory_of_different_molecules_goes_by_their_atoms(monkeypatch):
    """1 MB an atom; a pass of 600 atoms is 600 MB, whether it holds 10 large molecules or 200 small ones."""
    large = Molecule(np.full(57, 1), np.arange(57)[:, None] * np.array([3.0, 0.0, 0.0]))
    replicas = Replicas(PerAtom(WATER), [large, WATER] * 100, "cpu")
    position = replicas.start
    for room, passes, fits in ((1e9, 600, True), (0.5e9, 600, False), (5e9, 6000, False), (8e9, 6000, True)):
        monkeypatch.setattr(resources, "free_memory", lambda device, room=room: room)
        replicas.potential = InPasses(PerAtom(WATER), passes)
        if fits:
            resources.first_evaluation(replicas, position)
            continue
        with pytest.raises(SimulationError, match=r"set atoms_per_pass=(\d+)$") as caught:
            resources.first_evaluation(replicas, position)
        found = re.search(r"of which (\d+) atoms at a time .* atoms_per_pass=(\d+)$", one_line(caught))
        assert found
        assert passes - 60 <= int(found[1]) <= passes
        assert 0.6 * room / 1e6 < int(found[2]) < 1.0 * room / 1e6


def test_passes_that_fail_are_told_what_would_fit(tmp_path):
    """Room for 260 waters; 1002 of them in passes of 500 are tried, and the advice is smaller than what failed."""
    with pytest.raises(SimulationError, match=r"set atoms_per_pass=(\d+)$") as caught:
        run(tmp_path / "run.h5", InPasses(Full(WATER, room=260), 1500), replicas=1002)
    found = re.search(r"set atoms_per_pass=(\d+)$", one_line(caught))
    assert found
    assert int(found[1]) == 3 * 167  # half of passes of 334
    # Where all go at once, passes are the way out too: half of 520 waters has room.
    with pytest.raises(SimulationError, match=r"set atoms_per_pass=780$"):
        run(tmp_path / "run.h5", InPasses(Full(WATER, room=260), 0), replicas=260 * 2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is measured on Linux only")
def test_memory_that_the_process_keeps_does_not_hide_the_need(tmp_path):
    """Freed blocks stay with the programs (densnet.allocator) and would be used again unseen; in a process of its own."""
    program = """
import sys
import numpy as np
from densnet.allocator import keep_freed_memory
from densnet.simulation import resources
from test_simulation_resources import Greedy, WATER, run
assert keep_freed_memory()
blocks = [np.ones(1_000_000) for _ in range(60)]
del blocks
resources.free_memory = lambda device: 1e9
try:
    run(sys.argv[1], Greedy(WATER, megabytes=8.0), replicas=2000)
except Exception as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "run.h5")]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout
    found = re.search(r"set simulation\.replicas=(\d+)$", out.strip())
    assert found, out
    assert 80 < int(found[1]) < 140


def test_free_memory_is_that_of_the_machine():
    free = resources.free_memory(torch.device("cpu"))
    if free is not None:
        assert 1e6 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    "error", [ALLOCATOR, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError("cannot allocate")]
)
def test_an_allocation_that_fails_says_how_many_would_fit(tmp_path, error):
    message = r"replicas is 60, .*; expected at most about 15; set simulation\.replicas=15"
    with pytest.raises(SimulationError, match=message) as caught:
        run(tmp_path / "run.h5", Full(WATER, room=20, error=error), replicas=60)
    one_line(caught)
    with pytest.raises(SimulationError, match="expected at most about 0; use a smaller molecule"):
        run(tmp_path / "run.h5", Full(WATER, room=0, error=error), replicas=60)
    assert not list(tmp_path.iterdir())


def test_other_errors_of_a_potential_are_not_taken_for_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(tmp_path / "run.h5", Full(WATER, room=0, error=RuntimeError("shapes cannot be multiplied")), replicas=4)


def test_memory_that_runs_out_later_leaves_the_frames(tmp_path):
    with pytest.raises(SimulationError, match="memory ran out during the run") as caught:
        run(tmp_path / "run.h5", Full(WATER, from_call=31), replicas=4)
    one_line(caught)
    assert len(read_trajectory(tmp_path / "run.h5").energy) == 31
    assert run(tmp_path / "run.h5", replicas=4, resume=True).steps == 100


STARVED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from test_simulation_resources import Greedy, WATER, run
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
try:
    run(sys.argv[2], Greedy(WATER, megabytes=1024.0), replicas=12)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_the_allocator_itself(tmp_path, request):
    """torch's real failure, under a limit of 6 GB of address space: of 12 GB a quarter fits."""
    command = [sys.executable, "-c", STARVED, str(request.path.parent), str(tmp_path / "run.h5")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(r"SimulationError replicas is 12, which need more memory than there is .*; expected at most about 3;", said)


@pytest.mark.parametrize("charges", [False, True])
def test_a_trajectory_larger_than_the_disk_is_refused(tmp_path, monkeypatch, charges):
    """1001 frames of 10 replicas: 8 * 10 * (6 * 3 + 6) bytes each, 3 numbers more with charges; a tenth of it is free."""
    each = 8 * 10 * (27 if charges else 24)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: Usage(0, 0, 100 * each))
    sizes = r"0\.00216 GB, 0\.000216" if charges else r"0\.00192 GB, 0\.000192"
    message = rf"will take {sizes} GB are free; .* 1001 frames; .* every 11 steps"
    with pytest.raises(SimulationError, match=message) as caught:
        run(tmp_path / "run.h5", Flowing(WATER), steps=1000, replicas=10, flush_every=7, record_charges=charges)
    assert "or simulate 100 frames" in one_line(caught)
    assert not list(tmp_path.iterdir())
    run(tmp_path / "run.h5", Flowing(WATER), steps=1000, record_every=11, replicas=10, flush_every=7, record_charges=charges)
    assert 91 * each < (tmp_path / "run.h5").stat().st_size < 91 * each + 20000


def limited(tmp_path, request, body: str) -> str:
    """What a process of its own prints, one that ends well: HDF5 crashes at the end of one whose write failed under it."""
    head = "import resource, sys\nsys.path.insert(0, sys.argv[1])\nfrom test_simulation_resources import *\npath = sys.argv[2]\n"
    command = [sys.executable, "-c", head + body, str(request.path.parent), str(tmp_path / "run.h5")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


OPTIONS = {"replicas": 4, "steps": 2000, "record_every": 1, "flush_every": 20}
RUN = """
try:
    run(path, **OPTIONS)
except SimulationError as error:
    print(error)
"""
SMALL_FILES = "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
UNASKED = "from densnet.simulation import engine\nengine.check_disk = lambda *arguments: None"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run.h5"
    run(path, **OPTIONS)
    return read_trajectory(path)


def assert_stopped_well(folder: Path, said: str, reason: str, whole) -> None:
    """One line; the frames it names can be read and are those of a whole run."""
    assert said.count("\n") == 1
    found = re.search(r"run\.h5 cannot be written \(.*" + reason + r".*its first (\d+) frames are safe", said)
    assert found, said
    partial = read_trajectory(folder / "run.h5")
    assert len(partial.energy) == int(found[1]) >= 100
    assert np.array_equal(partial.position, whole.position[: len(partial.energy)])


def test_a_file_that_may_not_grow(tmp_path, request, whole):
    """A real limit of the operating system, in a process of its own; without it the run continues, bit for bit."""
    said = limited(tmp_path, request, SMALL_FILES + RUN)
    assert_stopped_well(tmp_path, said, "File too large", whole)
    run(tmp_path / "run.h5", resume=True, **OPTIONS)
    assert np.array_equal(read_trajectory(tmp_path / "run.h5").velocity, whole.velocity)


def test_a_full_disk(tmp_path, request, whole):
    """A file system of 500 kB in memory, where this process may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        with pytest.raises(SimulationError, match="are free; expected room for 2001 frames"):
            run(tmp_path / "run.h5", **OPTIONS)
        said = limited(tmp_path, request, UNASKED + RUN)
        partial = read_trajectory(tmp_path / "run.h5")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    # Trajectory and restart file share the disk; either may be the one that finds it full.
    assert said.count("\n") == 1
    assert re.search(r"run\.h5 (or its restart file )?cannot be written \(.*No space left on device", said)
    assert len(partial.energy) >= 100
    assert np.array_equal(partial.position, whole.position[: len(partial.energy)])


def test_no_room_for_a_block(tmp_path, monkeypatch, whole):
    """The same without rights and in this process: the system grants three blocks."""
    grant, granted = os.posix_fallocate, []

    def scarce(handle: int, start: int, length: int) -> None:
        granted.append(length)
        if len(granted) > 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        grant(handle, start, length)

    monkeypatch.setattr(os, "posix_fallocate", scarce)
    with pytest.raises(SimulationError) as caught:
        run(tmp_path / "run.h5", **OPTIONS)
    assert_stopped_well(tmp_path, one_line(caught) + "\n", "No space left on device", whole)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed, errno = 28")])
def test_a_write_that_fails_all_the_same(tmp_path, monkeypatch, failure, whole):
    writes = []

    def failing(dataset: h5py.Dataset, block: np.ndarray) -> None:
        writes.append(1)
        if len(writes) > 40:
            raise failure
        extend(dataset, block)

    extend = writer._extend
    monkeypatch.setattr(writer, "_extend", failing)
    with pytest.raises(SimulationError) as caught:
        run(tmp_path / "run.h5", **OPTIONS)
    assert "cannot be written" in one_line(caught)
    partial = read_trajectory(tmp_path / "run.h5")
    assert len(partial.energy) >= 100
    assert np.array_equal(partial.position, whole.position[: len(partial.energy)])


def test_a_restart_file_that_cannot_be_written(tmp_path, monkeypatch, whole):
    def full(path: Path, point: object) -> None:
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        calls.append(1)
        write(path, point)

    calls, write = [], engine.write_restart
    monkeypatch.setattr(engine, "write_restart", full)
    with pytest.raises(SimulationError, match=r"or its restart file cannot be written .*No space left") as caught:
        run(tmp_path / "run.h5", **OPTIONS)
    one_line(caught)
    monkeypatch.undo()
    run(tmp_path / "run.h5", resume=True, **OPTIONS)
    assert np.array_equal(read_trajectory(tmp_path / "run.h5").position, whole.position)


def test_a_read_only_file_is_not_replaced(tmp_path):
    run(tmp_path / "run.h5", steps=5)
    (tmp_path / "run.h5").chmod(stat.S_IRUSR | stat.S_IRGRP)
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(SimulationError, match="is read-only; expected a file that may be changed") as caught:
            simulate(Springs(WATER), WATER, settings(steps=9), tmp_path / "run.h5", progress=False, **options)
        one_line(caught)
    assert len(read_trajectory(tmp_path / "run.h5").energy) == 6


def test_a_read_only_folder(tmp_path, request):
    """A file system mounted without the right to write, where this process may mount one."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system")
    try:
        said = limited(tmp_path, request, UNASKED + RUN)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert said.count("\n") == 1
    assert "cannot be written" in said
    assert "Read-only file system" in said


def test_an_element_that_the_model_does_not_know(tmp_path, model):
    gold = Molecule(np.array([79, 1]), np.array([[0.0, 0, 0], [0, 0, 2.9]]))
    with pytest.raises(BasisError, match=r"Au|79") as caught:
        simulate(model, gold, settings(), tmp_path / "run.h5", progress=False)
    one_line(caught)
    assert not list(tmp_path.iterdir())


def test_overlapping_atoms_and_a_strained_start(tmp_path):
    with pytest.raises(StructureError, match=r"atoms 0 and 1 are 0\.106 angstrom apart; expected at least 0\.3") as caught:
        WATER.moved(np.array([[0.0, 0, 0], [0, 0, 0.2], [0, 2.0, 0]]))
    one_line(caught)
    strained = WATER.moved(WATER.position * np.array([0.45, 0.45, 1.0]))
    with pytest.raises(SimulationError, match="too large or the start is strained") as caught_too:
        simulate(Springs(WATER, k=2.0), strained, settings(), tmp_path / "run.h5", progress=False)
    one_line(caught_too)


def test_replicas_padded_or_not_evaluate_alike():
    few = Replicas(Springs(WATER), [WATER] * 5, "cpu").first(2)
    assert len(few) == 2
    assert few(few.start).force.shape == (2, 3, 3)
