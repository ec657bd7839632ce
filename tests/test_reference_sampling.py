"""Sampled geometries: thermal, reproducible, apart from each other; and read back only for the same settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ase.data import atomic_masses

from densnet.data.geometry import load_geometry
from densnet.data.similarity import nearest_rmsd
from densnet.errors import ConfigError, DataError, StructureError
from densnet.reference.pipeline import Workers
from densnet.reference.sampling import (
    Frame,
    SamplingSettings,
    farthest_points,
    langevin,
    pair_distances,
    read_geometries,
    sample,
    settings_hash,
    write_geometries,
)
from densnet.structures import Molecule
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON, FS_PER_AU

WATER = load_geometry("water")[0]
SHORT = SamplingSettings(train=7, test=3, equilibration_fs=20, length_fs=200, every_fs=10)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(1) as pool:
        yield pool


def test_equipartition() -> None:
    mass = atomic_masses[WATER.number][:, None] * ELECTRON_MASS_PER_DALTON
    steps = langevin(WATER, 400.0, 0.25 / FS_PER_AU, 0.1 * FS_PER_AU, np.random.default_rng(0))
    kinetic = [0.5 * (mass * v**2).sum() for _, v in islice(steps, 500, 30000)]
    # 9 degrees of freedom, about 370 independent samples: 2.5 % standard error, 1 % from the finite step
    assert np.mean(kinetic) / (4.5 * BOLTZMANN * 400.0) == pytest.approx(1.0, abs=0.09)


def test_frames_are_reproducible_and_as_ordered(workers: Workers) -> None:
    first, again = (sample([WATER], SHORT, workers) for _ in range(2))
    other = sample([WATER], replace(SHORT, seed=1), workers)
    assert [f.source for f in first] == [f.source for f in again]
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a.molecule.position, b.molecule.position)
    assert not np.allclose(first[0].molecule.position, other[0].molecule.position)
    assert sorted(f.split for f in first) == ["test"] * 3 + ["train"] * 7
    assert len({f.source for f in first}) == 10
    assert {f.source.split(":")[0] for f in first} == {"train300_0", "train500_0", "train800_0", "test300_0", "test500_0"}
    for frame in first:
        np.testing.assert_allclose(WATER.number @ frame.molecule.position, 0, atol=1e-12)


def test_train_and_test_trajectories_have_other_seeds(workers: Workers) -> None:
    alike = replace(SHORT, train=2, test=2, train_temperatures=(300.0,), test_temperatures=(300.0,), thinning="time")
    train, test = (
        np.array([f.molecule.position for f in sample([WATER], alike, workers) if f.split == split])
        for split in ("train", "test")
    )
    assert nearest_rmsd(test, train).min() > 1e-3


def test_thinning_prefers_different_frames() -> None:
    features = np.array([[0.0], [0.1], [5.0], [0.2], [-5.0], [0.1]])
    assert set(farthest_points(features, 3)) == {0, 2, 4} or set(farthest_points(features, 3)) == {1, 2, 4}
    assert sorted(farthest_points(features, 6)) == [0, 1, 2, 3, 4, 5]  # equal rows are not chosen twice


def test_pair_distances_ignore_motion_and_reflection() -> None:
    position = np.random.default_rng(3).normal(size=(5, 3)) * 4
    rotation, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    distances = pair_distances(np.array([position, position @ rotation.T + 3, position * [1, 1, -1]]))
    np.testing.assert_allclose(distances, distances[[0, 0, 0]], atol=1e-9)


def test_restart_uses_the_same_geometries_or_refuses(tmp_path: Path) -> None:
    frames = [Frame(WATER, "train", "a:0"), Frame(WATER.moved(WATER.position + 1), "test", "b:0")]
    path, identity = tmp_path / "geometries.h5", settings_hash([WATER], SHORT)
    write_geometries(path, frames, identity)
    found = read_geometries(path, identity)
    assert [(f.split, f.source) for f in found] == [("train", "a:0"), ("test", "b:0")]
    np.testing.assert_array_equal(found[1].molecule.position, frames[1].molecule.position)
    with pytest.raises(ConfigError, match="other settings"):
        read_geometries(path, settings_hash([WATER], replace(SHORT, train=8)))
    with pytest.raises(ConfigError, match="other settings"):
        read_geometries(path, settings_hash([replace(WATER, charge=2)], SHORT))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        read_geometries(path, identity)


def test_faults(workers: Workers) -> None:
    with pytest.raises(ConfigError, match="20 candidates for 40 frames"):
        sample([WATER], replace(SHORT, train=120), workers)
    with pytest.raises(StructureError, match="differ in their atoms"):
        sample([WATER, load_geometry("ammonia")[0]], SHORT, workers)
    with pytest.raises(ConfigError, match="thinning is random"):
        SamplingSettings(thinning="random")
    with pytest.raises(ConfigError, match="not positive"):
        SamplingSettings(time_step_fs=0.0)
    fermium = Molecule(np.array([100]), np.zeros((1, 3)))
    with pytest.raises(StructureError, match="GFN2-xTB"):
        next(langevin(fermium, 300.0, 10.0, 0.01, np.random.default_rng(0)))
