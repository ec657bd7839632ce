"""python -m densnet.reference, as a user calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

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
    done = reference("molecule=NH3", f"data_dir={tmp_path}", *CHEAP)
    assert done.returncode == 2
    assert "no functions for Z=[7]; it knows Z=[1, 6, 8]" in done.stderr
    assert list(tmp_path.iterdir()) == []


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
