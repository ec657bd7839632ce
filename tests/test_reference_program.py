"""python -m densnet.reference, as a user calls it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from omegaconf import OmegaConf

from densnet.data.dipole_derivatives import read_dipole_derivatives
from densnet.data.fits import read_fits
from densnet.data.harmonic import read_harmonic
from densnet.data.labels import Level, read_labels
from densnet.errors import ConfigError
from densnet.reference.__main__ import _settings
from densnet.reference.sampling import SamplingSettings

CHEAP = ("level.ao_basis=sto-3g", "sampling.train=3", "sampling.test=2", "sampling.length_fs=100", "sampling.equilibration_fs=10")


def reference(*overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "densnet.reference", "workers=1", *overrides]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=300, check=False)


def test_hydrogen_from_nothing_to_fitted_labels_and_harmonic_reference(tmp_path: Path) -> None:
    done = reference("molecule=hydrogen", f"data_dir={tmp_path}", *CHEAP)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"geometries.h5", "labels.h5", "harmonic.h5", "fits.h5", "spool"}
    labels = read_labels(tmp_path / "labels.h5", density_matrices=True)
    assert labels.level == Level(ao_basis="sto-3g")
    assert (labels.indices("train").size, labels.indices("test").size) == (3, 2)
    harmonic = read_harmonic(tmp_path / "harmonic.h5")
    assert (labels.energy > harmonic.energy).all()  # the stationary point is the bottom
    bond = np.linalg.norm(np.diff(harmonic.position, axis=0))
    assert 1.35 < bond < 1.45  # bohr; 1.40 is the experimental one

    done = reference("molecule=hydrogen", "task=derivatives", f"data_dir={tmp_path}", "derivatives.frames=2", *CHEAP)
    assert done.returncode == 0, done.stderr
    assert "dipole derivatives of 2 frames, 0 failed" in done.stdout
    found = read_dipole_derivatives(tmp_path / "derivatives.h5")
    # Neither atom of H2 is the positive one. A term of the field left out would leave half an electron.
    assert np.abs(found.derivative).max() < 1e-3
    assert len(list((tmp_path / "spool/derivatives").glob("*.npz"))) == 2
    done = reference("molecule=hydrogen", "task=derivatives", f"data_dir={tmp_path}", "derivatives.frames=9", *CHEAP)
    assert done.returncode == 2
    assert "expected 1 to 3" in done.stderr

    around = ("molecule=hydrogen", "task=sample", "sampling=wigner", "sampling.train=4")
    done = reference(*around, f"data_dir={tmp_path / 'around'}", f"sampling.harmonic=[{tmp_path / 'harmonic.h5'}]")
    assert done.returncode == 0, done.stderr
    with h5py.File(tmp_path / "around" / "geometries.h5") as file:
        bonds = np.linalg.norm(np.diff(file["position"][:], axis=1), axis=(1, 2))
    assert np.unique(bonds).size == 4
    assert 0.0 < np.abs(bonds - bond).max() < 0.5  # the ground state spreads by 0.16 bohr
    done = reference(*around, f"data_dir={tmp_path / 'around'}", f"sampling.harmonic={tmp_path / 'harmonic.h5'}")
    assert done.returncode == 2
    assert "setting harmonic is" in done.stderr
    done = reference(*around, f"data_dir={tmp_path / 'around'}")
    assert done.returncode == 2
    assert "no value for sampling.harmonic" in done.stderr


def test_the_other_shipped_settings_run(tmp_path: Path) -> None:
    """level, sampling and basis that the test above does not use."""
    small = ("sampling.train=2", "sampling.test=1", "sampling.length_fs=100", "sampling.equilibration_fs=10")
    done = reference(
        "molecule=hydrogen", f"data_dir={tmp_path}", "level=pbe0_def2tzvp", "sampling=flexible", "basis=even_tempered",
        "basis.ratio=3.0", "basis.lmax=2", *small,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    fits = read_fits(tmp_path / "fits.h5")
    assert (fits.level.xc, fits.basis.ao_basis, fits.basis.lmax) == ("pbe0", "def2-tzvp", 2)
    assert 0 < fits.report.nmae_percent_mean < 3


def test_a_fault_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    done = reference("molecule=CH3", "task=label", f"data_dir={tmp_path}", *CHEAP)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "9 electrons at charge +0" in errors[0]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_element_the_basis_lacks_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    done = reference("molecule=PH3", f"data_dir={tmp_path}", *CHEAP)
    assert done.returncode == 2
    assert "no functions for Z=[15]; it knows Z=[1, 6, 7, 8, 9, 16, 17]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_label_file_is_checked_and_fitted_without_its_molecule(tiny_fits: Path, tmp_path: Path) -> None:
    """task=check prints a table; a wrong dipole stops it and the frame is named; task=fit with out= makes a small file."""
    labels = tiny_fits.with_name("labels.h5")
    done = reference("task=check", f"labels={labels}", "check.frames=9")
    assert done.returncode == 0, done.stderr
    table = {line[:34].strip(): line.split() for line in done.stdout.splitlines()}
    assert {"electrons", "dipole", "second moment", "net force", "RMSD of test from train"} <= set(table)
    bad = tmp_path / "bad.h5"
    shutil.copy(labels, bad)
    with h5py.File(bad, "r+") as file:
        file["dipole"][4, 1] += 1e-3
    done = reference("task=check", f"labels={bad}")
    assert done.returncode == 2
    assert "WRONG" in done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert re.search(r"bad.h5, frame 4: dipole is off, 1.00e-03 e bohr found; expected at most 1.0e-05", errors[0])

    small = ("fit.points_train=20", "fit.points_test=10", "fit.grid_frames_test=0", "fit.grid_frames_train=0", "fit.grid_level=0")
    source = f"basis.path={tiny_fits.with_name('basis.json')}"
    done = reference("task=fit", f"labels={labels}", f"out={tmp_path / 'small.h5'}", source, *small)
    assert done.returncode == 0, done.stderr
    assert "nmae_percent_mean none" in done.stdout
    fits = read_fits(tmp_path / "small.h5")
    assert (len(fits), len(fits.grid_frame)) == (10, 0)
    for wrong, message in (("task=label", "expected task=check, fit or derivatives"), ("check.frames=0", "check.frames is 0")):
        done = reference("molecule=H2O", f"labels={labels}", "task=check", wrong, f"data_dir={tmp_path}")
        assert done.returncode == 2
        assert message in done.stderr


def test_settings_have_the_types_of_their_defaults() -> None:
    made = _settings(SamplingSettings, OmegaConf.create({"length_fs": 100, "test_temperatures": [300], "train": 4}))
    assert made == SamplingSettings(length_fs=100.0, test_temperatures=(300.0,), train=4)
    for faulty, message in (
        ({"train": "many"}, "setting train is 'many'"),
        ({"train": 1.5}, "setting train is 1.5"),
        ({"train_temperatures": ["hot"]}, "setting train_temperatures"),
        ({"trian": 3}, "unknown setting trian"),
    ):
        with pytest.raises(ConfigError, match=message):
            _settings(SamplingSettings, OmegaConf.create(faulty))
