"""python -m densnet.reference, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from densnet.data.harmonic import read_harmonic
from densnet.data.labels import Level, read_labels

CHEAP = ("level.ao_basis=sto-3g", "sampling.train=3", "sampling.test=2", "sampling.length_fs=100",
         "sampling.equilibration_fs=10", "workers=1")  # fmt: skip


def reference(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "densnet.reference", *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=200, check=False)


def test_hydrogen_from_nothing_to_labels_and_harmonic_reference(tmp_path: Path) -> None:
    for task in ("label", "harmonic"):
        done = reference("molecule=hydrogen", f"task={task}", f"data_dir={tmp_path}", *CHEAP)
        assert done.returncode == 0, done.stderr
    labels = read_labels(tmp_path / "labels.h5", density_matrices=True)
    assert labels.level == Level(ao_basis="sto-3g")
    assert (labels.indices("train").size, labels.indices("test").size) == (3, 2)
    harmonic = read_harmonic(tmp_path / "harmonic.h5")
    assert (labels.energy > harmonic.energy).all()  # the stationary point is the bottom
    bond = np.linalg.norm(np.diff(harmonic.position, axis=0))
    assert 1.35 < bond < 1.45  # bohr; 1.40 is the experimental one


def test_faults_are_one_line_with_exit_code_2(tmp_path: Path) -> None:
    for overrides, message in (
        (("molecule=CH3", "task=label"), "9 electrons at charge +0"),
        (("molecule=hydrogen", "sampling.train=many"), "setting train is 'many'"),
    ):
        done = reference(
            *overrides,
            f"data_dir={tmp_path}",
        )
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert done.returncode == 2
        assert len(errors) == 1
        assert message in errors[0]
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
