"""Two data sets as one: nothing lost, pointers right, and no test frame becomes a training frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from densnet.data.datamodule import FitsDataModule
from densnet.data.fits import Fits, read_fits
from densnet.errors import BasisError, ConfigError, DataError
from densnet.join import join, joined_report


@pytest.fixture
def moved_fits(tiny_fits: Path, tmp_path: Path) -> Path:
    """The same data with other geometries, energies and longer names."""
    path = tmp_path / "moved.h5"
    shutil.copy(tiny_fits, path)
    with h5py.File(path, "r+") as file:
        file["position"][...] = file["position"][:] + 1.0
        file["energy"][...] = file["energy"][:] - 1.0
        names = np.array([f"a much longer name of frame {k}".encode() for k in range(len(file["energy"]))])
        del file["source"]
        file["source"] = names
        file.attrs["labels_hash"] = "0123456789abcdef"
    return path


def _same_frame(a: Fits, f: int, b: Fits, g: int) -> None:
    assert np.array_equal(a.position[a.atoms(f)], b.position[b.atoms(g)])
    assert np.array_equal(a.coefficient[a.atoms(f)], b.coefficient[b.atoms(g)])
    assert np.array_equal(a.force[a.atoms(f)], b.force[b.atoms(g)])
    assert (a.energy[f], a.split[f], a.source[f]) == (b.energy[g], b.split[g], b.source[g])
    assert np.array_equal(a.quadrupole[f], b.quadrupole[g])
    mine, other = a.samples(f), b.samples(g)
    assert mine is not None
    assert other is not None
    assert np.array_equal(mine.point, other.point)
    assert np.array_equal(mine.density, other.density)


def test_frames_keep_their_order_and_their_points(tiny_fits: Path, moved_fits: Path, tmp_path: Path) -> None:
    join([moved_fits, tiny_fits], tmp_path / "both.h5")
    first, second, both = read_fits(moved_fits), read_fits(tiny_fits), read_fits(tmp_path / "both.h5")
    n = len(first)
    assert len(both) == n + len(second)
    for f in range(n):
        _same_frame(both, f, first, f)
    for f in range(len(second)):
        _same_frame(both, n + f, second, f)
    assert both.grid_frame.tolist() == [*first.grid_frame.tolist(), *(second.grid_frame + n).tolist()]
    for mine, its, source in [(0, 0, first), (-1, -1, second)]:
        assert np.array_equal(both.grid(int(both.grid_frame[mine])).point, source.grid(int(source.grid_frame[its])).point)
    assert both.labels_hash not in (first.labels_hash, second.labels_hash)
    assert both.basis.hash == first.basis.hash
    data = FitsDataModule(str(tmp_path / "both.h5"), batch_size=2, validation=2, points=20)
    assert data.validation_frames.tolist() == (second.indices("train")[-2:] + n).tolist()


def test_report_of_both(tiny_fits: Path, moved_fits: Path, tmp_path: Path) -> None:
    join([moved_fits, tiny_fits], tmp_path / "both.h5")
    both, one = read_fits(tmp_path / "both.h5"), read_fits(tiny_fits)
    assert both.report == joined_report([one, one])
    assert both.report.frames == 2 * one.report.frames
    assert both.fit_nmae.mean() == pytest.approx(both.report.nmae_percent_mean)


def test_refusals(tiny_fits: Path, moved_fits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two or more, none of them"):
        join([tiny_fits], tmp_path / "x.h5")
    with pytest.raises(ConfigError, match="none of them the file to write"):
        join([tiny_fits, moved_fits], tiny_fits)
    swapped, foreign = tmp_path / "swapped.h5", tmp_path / "foreign.h5"
    shutil.copy(tiny_fits, swapped)
    with h5py.File(swapped, "r+") as file:
        file["split"][...] = np.where(file["split"][:] == b"train", b"test", b"train")
    with pytest.raises(DataError, match="expected test frames that nothing is trained on"):
        join([tiny_fits, swapped], tmp_path / "x.h5")
    shutil.copy(moved_fits, foreign)
    with h5py.File(foreign, "r+") as file:
        level = json.loads(file.attrs["level"]) | {"xc": "pbe0"}
        file.attrs["level"] = json.dumps(level)
    with pytest.raises(DataError, match="expected one level of theory"):
        join([tiny_fits, foreign], tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_other_basis_is_refused(tiny_fits: Path, moved_fits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = {tiny_fits: read_fits(tiny_fits), moved_fits: read_fits(moved_fits)}
    monkeypatch.setattr(type(fits[moved_fits].basis), "hash", property(lambda basis: str(id(basis))))
    monkeypatch.setattr("densnet.join.read_fits", fits.__getitem__)
    with pytest.raises(BasisError, match="expected the same"):
        join([tiny_fits, moved_fits], tmp_path / "x.h5")
