"""The check of a label file sees every kind of wrong frame, and names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from densnet.data.labels import Labels, read_labels, write_labels
from densnet.errors import ConfigError, DataError
from densnet.reference.check import CheckSettings, check_labels, refuse_wrong, table

LOOSE = CheckSettings(net_force=5e-3)  # labels on a coarse grid


@pytest.fixture(scope="module")
def labels(tiny_fits: Path) -> Labels:
    return read_labels(tiny_fits.with_name("labels.h5"), density_matrices=True)


def test_good_labels_pass(tiny_fits: Path) -> None:
    """What is left is the float32 of the density matrix, and the grid in the net force."""
    path = tiny_fits.with_name("labels.h5")
    findings = check_labels(path, LOOSE)
    refuse_wrong(path, findings)
    worst = {f.name: f.worst for f in findings}
    assert max(worst["electrons"], worst["dipole"], worst["second moment"]) < 3e-6
    assert worst["electrons"] > 0
    text = table(findings)
    assert len(text.splitlines()) == len(findings) + 1
    assert "WRONG" not in text
    assert len({f.frame for f in check_labels(path, dataclasses.replace(LOOSE, frames=1))}) == 1


def moved(labels: Labels, name: str, place: tuple[int, ...], by: float) -> Labels:
    value = getattr(labels, name).copy()
    value[place] += by
    return dataclasses.replace(labels, **{name: value}, path=None)


def scaled_matrix(labels: Labels) -> Labels:
    packed = labels.packed.copy()  # type: ignore[union-attr]
    packed[labels.dm_ptr[6] : labels.dm_ptr[7]] *= 1.0001
    return dataclasses.replace(labels, packed=packed, path=None)


def leaked(labels: Labels) -> Labels:
    """Test frame 8 is a copy of training frame 2."""
    order = np.arange(10)
    order[8] = 2
    pointer = labels.frame_ptr
    atoms = np.concatenate([np.arange(pointer[f], pointer[f + 1]) for f in order])
    size = int(labels.dm_ptr[1])
    packed = labels.packed.reshape(10, size)[order].ravel()  # type: ignore[union-attr]
    changed = {name: getattr(labels, name)[atoms] for name in ("number", "position", "force")}
    changed |= {name: getattr(labels, name)[order] for name in ("energy", "dipole", "quadrupole")}
    return dataclasses.replace(labels, **changed, packed=packed, path=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: moved(x, "dipole", (3, 2), 2e-5), "frame 3: dipole is off, 2.0"),
        (lambda x: moved(x, "quadrupole", (9, 0, 1), -2e-4), "frame 9: second moment is off, 2.0"),
        (lambda x: moved(x, "force", (3 * 5 + 1, 0), 2e-2), "frame 5: net force is off"),
        (lambda x: moved(x, "energy", (4,), 0.5), "frame 4: energy per atom above the lowest is off"),
        (scaled_matrix, "frame 6: electrons is off, 1.0"),
        (leaked, "frame 8: RMSD of test from train is off, .* expected at least 1.0e-04"),
    ],
    ids=["dipole", "second moment", "force", "energy", "density matrix", "test frame in the training set"],
)
def test_a_wrong_frame_is_named(labels: Labels, change: Callable[[Labels], Labels], message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.h5"
    write_labels(path, change(labels))
    findings = check_labels(path, LOOSE)
    with pytest.raises(DataError, match=message) as error:
        refuse_wrong(path, findings)
    assert "\n" not in str(error.value)
    assert "WRONG" in table(findings)


def test_impossible_settings() -> None:
    for change, message in (
        ({"frames": 0}, "check.frames is 0"),
        ({"dipole": -1.0}, "check.dipole is -1.0"),
        ({"frames": "a"}, "'a'"),
    ):
        with pytest.raises(ConfigError, match=message):
            CheckSettings(**change)
