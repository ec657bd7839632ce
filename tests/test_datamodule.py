"""Training data in memory: metrics, samples of real space, order of frames, and what is refused before training."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import AO_BASIS

from densnet.basis.ordering import matrix_to_irreps
from densnet.data.datamodule import EpochSampler, FitsDataModule, FrameDataset, Wanted, packed_metrics, unpacked
from densnet.data.fits import read_fits
from densnet.data.labels import read_labels, write_labels
from densnet.errors import ConfigError, DataError
from densnet.reference.fit_dataset import BasisSettings, FitSettings, fit_labels
from densnet.reference.fitting import project


@pytest.fixture(scope="module")
def served(tiny_fits: Path) -> FitsDataModule:
    """Seven training frames with 300 samples each, three test frames with 200."""
    return FitsDataModule(str(tiny_fits), batch_size=2, validation=2, points=40, seed=5)


def test_metrics_against_pyscf(tiny_fits: Path) -> None:
    """M = J + mu S of PySCF's integrals in irreps order, also for a file in which the molecules differ."""
    fits, labels = read_fits(tiny_fits), read_labels(tiny_fits.with_name("labels.h5"))
    reversed_atoms = dataclasses.replace(fits, number=fits.number.copy(), position=fits.position.copy())
    other = reversed_atoms.atoms(6)
    reversed_atoms.number[other], reversed_atoms.position[other] = fits.number[other][::-1], fits.position[other][::-1]
    for data, f, mu in ((fits, 4, 0.5), (fits, 8, 2.0), (reversed_atoms, 6, 0.5)):
        frames = np.array([f, 2]) if data is fits else np.array([2, f, 4])
        packed = packed_metrics(data, frames, mu, progress=False)[frames.tolist().index(f)]
        integrals = project(data.frame(f), labels.density_matrix(f), AO_BASIS, fits.basis)
        exact = matrix_to_irreps(integrals.coulomb + mu * integrals.overlap, fits.basis, data.frame(f).number)
        assert packed.dtype == np.float32
        assert unpacked(packed) == pytest.approx(exact, rel=1e-6, abs=1e-6)


def test_a_frame_has_all_its_fields(served: FitsDataModule) -> None:
    batch = next(iter(served.train_dataloader()))
    fits = served.fits
    assert batch.num_graphs == 2
    n = fits.basis.size(fits.frame(0).number)
    assert batch.metric.shape == (2 * n * n,)
    assert batch.functions.tolist() == [n, n]
    assert batch.sample_point.shape == (80, 3)
    assert batch.sample_weight.shape == batch.sample_density.shape == (80,)
    assert batch.quadrupole.shape == (2, 3, 3)
    for i, f in enumerate(batch.frame.tolist()):
        assert np.array_equal(batch.quadrupole[i].numpy(), fits.quadrupole[f])
        assert np.array_equal(batch.dipole[i].numpy(), fits.dipole[f])
        stored = fits.samples(f)
        assert stored is not None
        rows = {tuple(p): (w, d) for p, w, d in zip(stored.point, stored.weight, stored.density)}
        for k in range(40 * i, 40 * i + 40):
            weight, density = rows[tuple(batch.sample_point[k].numpy())]
            assert float(batch.sample_weight[k]) == pytest.approx(weight * 300 / 40, rel=1e-6)
            assert float(batch.sample_density[k]) == density


def test_the_choice_of_points_depends_on_seed_epoch_and_frame_alone(tiny_fits: Path) -> None:
    fits = read_fits(tiny_fits)
    one, two = (FrameDataset(fits, np.array(frames), Wanted(None, 40, 5)) for frames in ([3, 1, 4], [1]))
    _ = [one[epoch, i] for epoch in range(3) for i in range(3)]  # a run that was not resumed has asked for others before
    again = two[3, 0].sample_point
    assert torch.equal(one[3, 1].sample_point, again)
    seeded = FrameDataset(fits, np.array([1]), Wanted(None, 40, 6))
    assert not any(torch.equal(other.sample_point, again) for other in (one[2, 1], seeded[3, 0]))
    places = [{tuple(p) for p in fits.samples(f).point} for f in (3, 1)]  # type: ignore[union-attr]
    assert {tuple(p) for p in again.numpy()} <= places[1]
    chosen = []
    for i, f in ((0, 3), (1, 1)):
        taken = {tuple(p) for p in one[3, i].sample_point.numpy()}
        chosen.append({k for k, p in enumerate(fits.samples(f).point) if tuple(p) in taken})  # type: ignore[union-attr]
    assert len(chosen[0] & chosen[1]) < 20  # of 40: not the same places in the list for every frame


def test_a_part_of_the_samples_estimates_what_all_do(tiny_fits: Path) -> None:
    """Mean over many epochs of sum weight * f, with f of the points, against that over all stored samples."""
    fits = read_fits(tiny_fits)
    data = FrameDataset(fits, np.array([2]), Wanted(None, 30, 0))
    stored = fits.samples(2)
    assert stored is not None
    exact = stored.weight @ stored.density
    items = [data[epoch, 0] for epoch in range(600)]
    found = [float(item.sample_weight @ item.sample_density) for item in items]
    error = np.std(found) / np.sqrt(len(found))
    assert error < 0.03 * exact
    assert abs(np.mean(found) - exact) < 4 * error


def test_validation_sees_all_points_every_time(served: FitsDataModule) -> None:
    first, second = (next(iter(served.val_dataloader())) for _ in range(2))
    assert first.sample_point.shape == (600, 3)
    assert torch.equal(first.sample_point, second.sample_point)
    stored = served.fits.samples(int(first.frame[1]))
    assert stored is not None
    assert np.array_equal(first.sample_weight[300:].numpy(), stored.weight)


def test_only_what_the_stage_wants_is_served(tiny_fits: Path) -> None:
    data = FitsDataModule(str(tiny_fits), batch_size=2, validation=2, points=40)
    data.serve(metric=False, points=True)
    batch = next(iter(data.train_dataloader()))
    assert (batch.metric.shape, batch.sample_weight.shape) == ((0,), (80,))
    data.serve(metric=True, points=False)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.sample_point.shape == (0, 3)
        assert batch.metric.numel() > 0
    with pytest.raises(ConfigError, match=r"dataset.points is 0; expected 1 to 300, which .* stores"):
        FitsDataModule(str(tiny_fits), batch_size=2, validation=2).serve(metric=False, points=True)


def test_every_epoch_has_another_order_and_processes_share_it() -> None:
    def epoch(number: int, **process: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(7, seed=3, **process)
        sampler.set_epoch(number)
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    assert sorted(epoch(2)) == [(2, i) for i in range(7)]
    assert [i for _, i in epoch(2)] != [i for _, i in epoch(3)]
    assert epoch(2) == epoch(2)
    shares = [epoch(2, rank=rank, processes=3) for rank in range(3)]
    assert {len(share) for share in shares} == {3}
    assert {i for share in shares for _, i in share} == set(range(7))
    assert [shares[k % 3][k // 3] for k in range(7)] == epoch(2)  # together the batch of a single process


@pytest.mark.parametrize("points", [-1, 301])
def test_more_points_than_stored(tiny_fits: Path, points: int) -> None:
    with pytest.raises(ConfigError, match=f"dataset.points is {points} but .* stores 300 samples") as error:
        FitsDataModule(str(tiny_fits), batch_size=2, validation=2, points=points)
    assert "\n" not in str(error.value)


def test_nothing_to_test_on_is_refused_before_training(tiny_fits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Samples will do in place of grids, and the program says so; without either, and without test frames, it stops."""

    def changed(name: str, change: Callable[[h5py.File], None]) -> str:
        shutil.copy(tiny_fits, tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            file["grid_frame"][...] = 0  # a training frame
            change(file)
        return str(tmp_path / name)

    def no_samples(file: h5py.File) -> None:
        file["sample_ptr"][8:] = file["sample_ptr"][7]
        for name in ("point", "weight", "density"):
            file[f"sample_{name}"].resize(int(file["sample_ptr"][7]), axis=0)

    def no_test(file: h5py.File) -> None:
        file["split"][...] = b"train"

    FitsDataModule(changed("samples.h5", lambda _: None), batch_size=3, validation=2)
    assert "on the samples of 3 test frames; no whole grid" in caplog.text
    with pytest.raises(DataError, match="3 test frames and the SCF density in none"):
        FitsDataModule(changed("none.h5", no_samples), batch_size=3, validation=2)
    with pytest.raises(DataError, match="0 test frames and the SCF density in none"):
        FitsDataModule(changed("train.h5", no_test), batch_size=3, validation=2)


def test_molecules_of_different_size_in_one_batch(tiny_fits: Path, tmp_path: Path) -> None:
    """Two distant waters as one molecule of six atoms, beside single ones."""
    labels = read_labels(tiny_fits.with_name("labels.h5"), density_matrices=True)
    nao = 13
    packed = []
    for f in range(10):
        matrix = labels.density_matrix(f)
        if f == 1:
            both = np.zeros((2 * nao, 2 * nao))
            both[:nao, :nao] = both[nao:, nao:] = matrix
            matrix = both
        packed.append(matrix[np.tril_indices(len(matrix))].astype(np.float32))
    atoms = labels.frame_ptr[1:3]
    second = slice(int(atoms[0]), int(atoms[1]))
    grow = {
        name: np.insert(getattr(labels, name), second.stop, getattr(labels, name)[second] + shift, axis=0)
        for name, shift in (("number", 0), ("position", np.array([0.0, 0.0, 9.0])), ("force", 0))
    }
    # Two waters far apart: dipoles add, about the origin, as each is neutral.
    dipole = labels.dipole.copy()
    dipole[1] *= 2
    pointer = labels.frame_ptr + np.where(np.arange(11) > 1, 3, 0)
    sizes = np.cumsum([0, *(len(p) for p in packed)])
    mixed = dataclasses.replace(
        labels, **grow, dipole=dipole, frame_ptr=pointer, dm_ptr=sizes.astype(np.int64), packed=np.concatenate(packed), path=None
    )
    write_labels(tmp_path / "labels.h5", mixed)
    settings = FitSettings(grid_level=0, points_train=30, points_test=20, grid_frames_test=1, grid_frames_train=0)
    fit_labels(tmp_path / "labels.h5", BasisSettings(str(tiny_fits.with_name("basis.json"))), tmp_path / "fits.h5", settings)
    data = FitsDataModule(str(tmp_path / "fits.h5"), batch_size=5, validation=2, points=20)
    batch = next(iter(data.train_dataloader()))
    n = data.fits.basis.size(np.array([8, 1, 1]))
    assert sorted(batch.functions.tolist()) == [n, n, n, n, 2 * n]
    assert batch.metric.shape == (4 * n**2 + (2 * n) ** 2,)
    assert batch.sample_point.shape == (100, 3)
    single = packed_metrics(data.fits, np.array([0]), 0.5, progress=False)[0]
    assert np.array_equal(packed_metrics(data.fits, np.array([1, 0]), 0.5, progress=False)[1], single)
