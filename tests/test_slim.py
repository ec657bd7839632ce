"""A data set made smaller: the same labels and coefficients, samples that still estimate integrals, and it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densnet.data.datamodule import FitsDataModule
from densnet.data.fits import read_fits
from densnet.errors import ConfigError
from densnet.slim import kept_samples, slim


def test_slim(tiny_fits: Path, tmp_path: Path) -> None:
    slim(tiny_fits, tmp_path / "small.h5", points_train=40, points_test=10)
    old, new = read_fits(tiny_fits), read_fits(tmp_path / "small.h5")
    for name in ("coefficient", "position", "energy", "dipole", "force"):
        assert np.array_equal(getattr(old, name), getattr(new, name))
    assert (new.basis.hash, new.labels_hash) == (old.basis.hash, old.labels_hash)
    assert not len(new.grid_frame)
    assert (tmp_path / "small.h5").stat().st_size < tiny_fits.stat().st_size
    for f in range(len(new)):
        all_of, some = old.samples(f), new.samples(f)
        assert all_of is not None
        assert some is not None
        stored, kept = len(all_of.weight), len(some.weight)
        assert kept == (40 if new.split[f] == "train" else 10) < stored
        where = [np.flatnonzero((all_of.point == p).all(1))[0] for p in some.point]
        assert some.weight == pytest.approx(all_of.weight[where] * stored / kept, rel=1e-6)
        assert np.array_equal(some.density, all_of.density[where])
    data = FitsDataModule(str(tmp_path / "small.h5"), batch_size=2, validation=2, points=20)
    batch = next(iter(data.train_dataloader()))
    assert batch.sample_point.shape == (40, 3)


def test_part_of_the_samples_is_unbiased() -> None:
    """Over many choices the estimate of an integral is that of all samples."""
    values = np.random.default_rng(1).exponential(size=100)
    pointer = np.array([0, 60, 100])
    found = []
    for seed in range(2000):
        index, factor, ends = kept_samples(pointer, np.array([6, 10]), seed)
        assert ends.tolist() == [0, 6, 16]
        found.append([(values[index[:6]] * factor[:6]).sum(), (values[index[6:]] * factor[6:]).sum()])
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert np.abs(np.mean(found, axis=0) - [values[:60].sum(), values[60:].sum()]).max() < 4 * error.max()


def test_refusals(tiny_fits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected another file"):
        slim(tiny_fits, tiny_fits, 1, 1)
    with pytest.raises(ConfigError, match="expected 0 or more"):
        slim(tiny_fits, tmp_path / "x.h5", -1, 1)
    slim(tiny_fits, tmp_path / "none.h5", 0, 0)
    assert read_fits(tmp_path / "none.h5").samples(0) is None
