"""Labelling survives a kill, refuses to mix settings, and records what fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densnet.data.geometry import load_geometry
from densnet.data.labels import Label, Level, read_labels
from densnet.errors import ConfigError, DataError, StructureError
from densnet.reference.kohn_sham import ScfSettings
from densnet.reference.pipeline import Workers, compute_labels, label_frames, stored
from densnet.reference.sampling import Frame

LEVEL = Level(ao_basis="sto-3g", grid_level=1)
SCRIPT = """
import sys
from pathlib import Path
from test_reference_pipeline import LEVEL, frames
from densnet.reference.kohn_sham import ScfSettings
from densnet.reference.pipeline import Workers, label_frames
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Workers(2) as workers:
        label_frames(frames(), LEVEL, ScfSettings(), folder / "labels.h5", folder / "spool", workers)
"""


def frames() -> list[Frame]:
    rng = np.random.default_rng(5)
    water = load_geometry("water")[0]
    moved = [water.moved(water.position + rng.normal(scale=0.05, size=(3, 3))) for _ in range(40)]
    return [Frame(m, "test" if k % 4 == 3 else "train", f"noise:{k}") for k, m in enumerate(moved)]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


def test_killed_labelling_resumes_to_the_same_file(tmp_path: Path, workers: Workers) -> None:
    script, killed, whole = tmp_path / "script.py", tmp_path / "killed", tmp_path / "whole"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        [sys.executable, str(script), str(killed)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(killed.glob("spool/*.npz"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)  # ends when the orphaned workers, which hold the same pipe, have ended by themselves
    assert not (killed / "labels.h5").exists()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("spool/*.npz")}
    assert 3 <= len(finished) < 40

    for folder in (killed, whole):
        label_frames(frames(), LEVEL, ScfSettings(), folder / "labels.h5", folder / "spool", workers)
    assert (killed / "labels.h5").read_bytes() == (whole / "labels.h5").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # nothing finished was computed again
    labels = read_labels(whole / "labels.h5", density_matrices=True)
    assert labels.source.tolist() == [f.source for f in frames()]
    for k, frame in enumerate(frames()):
        np.testing.assert_array_equal(labels.frame(k).position, frame.molecule.position)


def test_changed_settings_are_refused_not_mixed(tmp_path: Path, workers: Workers) -> None:
    molecules = [f.molecule for f in frames()[:2]]
    before = compute_labels(molecules, LEVEL, ScfSettings(), tmp_path / "spool", workers, "labelling")
    for level, geometries, what in (
        (replace(LEVEL, xc="pbe0"), molecules, "xc"),
        (replace(LEVEL, grid_level=2, conv_tol=1e-8), molecules, "grid_level, conv_tol"),
        (LEVEL, molecules[::-1], "geometries"),
        (LEVEL, [replace(m, charge=2) for m in molecules], "geometries"),
    ):
        with pytest.raises(ConfigError, match=f"frames with other {what}; use another data_dir") as error:
            compute_labels(geometries, level, ScfSettings(), tmp_path / "spool", workers, "labelling")
        assert "\n" not in str(error.value)
    again = compute_labels(molecules, LEVEL, ScfSettings(), tmp_path / "spool", workers, "labelling")
    for a, b in zip(before, again):
        assert isinstance(a, Label)
        assert isinstance(b, Label)
        assert a.energy == b.energy
    (tmp_path / "spool" / "identity.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        compute_labels(molecules, LEVEL, ScfSettings(), tmp_path / "spool", workers, "labelling")


def test_failed_frames_are_recorded_and_can_be_retried(tmp_path: Path, workers: Workers) -> None:
    three = frames()[:3]
    out, spool = tmp_path / "labels.h5", tmp_path / "spool"
    compute_labels([f.molecule for f in three], LEVEL, ScfSettings(), spool, workers, "labelling")
    (spool / "000001.npz").unlink()
    labels = label_frames(three, LEVEL, ScfSettings(max_cycle=1), out, spool, workers)
    assert (len(labels), len(labels.failures)) == (2, 1)
    failure = read_labels(out).failures[0]
    assert (failure.source, failure.split) == ("noise:1", "train")
    assert "SCF not converged" in failure.reason
    np.testing.assert_array_equal(failure.molecule.position, three[1].molecule.position)
    assert len(label_frames(three, LEVEL, ScfSettings(), out, spool, workers)) == 2
    labels = label_frames(three, LEVEL, ScfSettings(), out, spool, workers, retry=True)
    assert (labels.source.tolist(), labels.failures) == (["noise:0", "noise:1", "noise:2"], ())


def test_no_label_at_all(tmp_path: Path, workers: Workers) -> None:
    with pytest.raises(DataError, match="no frame could be labelled"):
        label_frames(frames()[:2], LEVEL, ScfSettings(max_cycle=1), tmp_path / "l.h5", tmp_path / "spool", workers)
    assert len(read_labels(tmp_path / "l.h5").failures) == 2


def test_a_cut_short_frame_is_computed_again(tmp_path: Path, workers: Workers) -> None:
    molecules = [f.molecule for f in frames()[:1]]
    first = compute_labels(molecules, LEVEL, ScfSettings(), tmp_path, workers, "labelling")[0]
    path = tmp_path / "000000.npz"
    path.write_bytes(path.read_bytes()[:300])
    assert stored(path) is None
    second = compute_labels(molecules, LEVEL, ScfSettings(), tmp_path, workers, "labelling")[0]
    assert isinstance(first, Label)
    assert isinstance(second, Label)
    assert second.energy == first.energy


def test_an_impossible_molecule_stops_in_one_line(tmp_path: Path, workers: Workers) -> None:
    radical = replace(frames()[0].molecule, charge=1)
    with pytest.raises(StructureError, match="9 electrons"):
        compute_labels([radical], LEVEL, ScfSettings(), tmp_path, workers, "labelling")


def test_workers_have_their_threads_and_their_death_is_reported(workers: Workers) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    with Workers(1, threads=2) as pool:
        assert dict(pool.run(os.getenv, ["OMP_NUM_THREADS"], None, "task")) == {0: "2"}
        with pytest.raises(ConfigError, match="died with exit code 7 at frame 0"):
            list(pool.run(os._exit, [7], None, "frame"))
    assert os.environ.get("OMP_NUM_THREADS") == before
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(workers.run(divmod_by_zero, [1], None, "task"))
    with pytest.raises(ConfigError, match="0 workers"):
        Workers(0)


def divmod_by_zero(value: int) -> float:
    return value / 0
