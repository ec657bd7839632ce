"""Training data as torch_geometric graphs; inputs (Molecules) and labels stay apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data.distributed import DistributedSampler
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData
from torch_geometric.loader import DataLoader
from tqdm import tqdm

from densnet.basis.metrics import metrics
from densnet.data.dipole_slopes import Slope, slopes_of
from densnet.data.fits import Fits, read_fits
from densnet.errors import BasisError, ConfigError, DataError
from densnet.structures import Molecules

log = logging.getLogger(__name__)
METRICS_AT_ONCE = 16


class Frame(Data):
    """One labelled frame of N atoms. Inputs: number (N,), position (N, 3), charge (1,). Labels: energy (1,), force (N, 3),

    dipole (1, 3), quadrupole (1, 3, 3), coefficient (N, width), functions (1,) = n of them exist, frame (1,) its index in the
    file, all float64 or int64; metric (n*n,) M = J + mu S over the existing functions, sample_point (P, 3), sample_weight (P,),
    sample_density (P,) importance-sampled SCF density, float32, empty if the stage does not want them; field (1, 3) and
    dipole_derivative (N, 3): unit vector u and d(u . mu)/dR, e, both zero for a frame without them, empty if the stage does not
    want them.
    """


class Frames(Protocol):
    """A batch of frames as torch_geometric collates them: the fields of Frame, and which molecule every atom is of."""

    number: Tensor
    position: Tensor
    charge: Tensor
    energy: Tensor
    force: Tensor
    dipole: Tensor
    quadrupole: Tensor
    coefficient: Tensor
    metric: Tensor
    functions: Tensor
    sample_point: Tensor
    sample_weight: Tensor
    sample_density: Tensor
    field: Tensor
    dipole_derivative: Tensor
    frame: Tensor
    batch: Tensor
    num_graphs: int


def inputs(batch: Frames) -> Molecules:
    """What a network may see of a batch."""
    return Molecules(batch.number, batch.position, batch.charge, batch.batch, batch.num_graphs)


def packed_metrics(fits: Fits, frames: np.ndarray, overlap_weight: float, progress: bool = True) -> list[np.ndarray]:
    """Lower triangle of M = J + mu S of every frame, row by row, float32, in the order of `block[exists]`."""
    kinds: dict[bytes, list[int]] = {}  # frames of the same atoms go through the integrals together
    for k, f in enumerate(frames.tolist()):
        kinds.setdefault(fits.number[fits.atoms(f)].tobytes(), []).append(k)
    packed: list[np.ndarray] = [np.empty(0, dtype=np.float32)] * len(frames)
    with tqdm(total=len(frames), desc="metrics", unit="frame", disable=not progress or not len(frames)) as bar:
        for members in kinds.values():
            number = fits.number[fits.atoms(int(frames[members[0]]))]
            rows, columns = np.tril_indices(fits.basis.size(number))
            for start in range(0, len(members), METRICS_AT_ONCE):
                some = members[start : start + METRICS_AT_ONCE]
                position = torch.as_tensor(np.stack([fits.position[fits.atoms(int(frames[k]))] for k in some]))
                found = metrics(fits.basis, number, position, overlap_weight, dtype=torch.float32)
                for k, metric in zip(some, found.numpy()):
                    packed[k] = metric[rows, columns]
                bar.update(len(some))
    return packed


def unpacked(triangle: np.ndarray) -> np.ndarray:
    """(n, n) symmetric matrix of its lower triangle."""
    n = (int(np.sqrt(8 * len(triangle) + 1)) - 1) // 2
    rows, columns = np.tril_indices(n)
    matrix = np.empty((n, n), dtype=triangle.dtype)
    matrix[rows, columns] = triangle
    matrix[columns, rows] = triangle
    return matrix


@dataclass(frozen=True)
class Wanted:
    """What is served beside the labels. metric: M with this mu (hartree*bohr), None for no metric;

    points: real-space samples of a frame in a training step, 0 for none; seed: of their choice; derivatives: of the dipole, for
    some of the frames, None for no such labels.
    """

    overlap_weight: float | None
    points: int
    seed: int
    derivatives: Mapping[int, Slope] | None = None


class FrameDataset(Sequence[BaseData]):
    """Some frames of a fitted data set in memory; metrics are kept packed and unfolded when a frame is asked for.

    An item is asked for by its index, and comes with all stored samples, or by (epoch, index), and comes with a random choice
    of them that depends on (seed, epoch, frame) alone.
    """

    def __init__(self, fits: Fits, frames: np.ndarray, wanted: Wanted) -> None:
        self.fits, self.frames, self.wanted = fits, frames, wanted
        self.packed = None if wanted.overlap_weight is None else packed_metrics(fits, frames, wanted.overlap_weight)
        self.samples = fits.samples_of(frames) if wanted.points else None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: int | tuple[int, int]) -> Frame:  # pyright: ignore[reportIncompatibleMethodOverride]
        epoch, i = key if isinstance(key, tuple) else (None, key)
        fits, f = self.fits, int(self.frames[i])
        atoms = fits.atoms(f)
        number = fits.number[atoms]
        metric = np.empty(0, dtype=np.float32) if self.packed is None else unpacked(self.packed[i]).ravel()
        point, weight, density = self._samples(i, epoch)
        field, derivative = self._slope(i, len(number))
        return Frame(
            num_nodes=len(number),
            number=torch.as_tensor(number, dtype=torch.long),
            position=torch.as_tensor(fits.position[atoms], dtype=torch.float64),
            charge=torch.tensor([float(fits.charge[f])], dtype=torch.float64),
            energy=torch.tensor([fits.energy[f]], dtype=torch.float64),
            force=torch.as_tensor(fits.force[atoms], dtype=torch.float64),
            dipole=torch.as_tensor(fits.dipole[f][None], dtype=torch.float64),
            quadrupole=torch.as_tensor(fits.quadrupole[f][None], dtype=torch.float64),
            coefficient=torch.as_tensor(fits.coefficient[atoms], dtype=torch.float64),
            metric=torch.as_tensor(metric),
            functions=torch.tensor([fits.basis.size(number)]),
            sample_point=torch.as_tensor(point),
            sample_weight=torch.as_tensor(weight),
            sample_density=torch.as_tensor(density),
            field=torch.as_tensor(field),
            dipole_derivative=torch.as_tensor(derivative),
            frame=torch.tensor([f]),
        )

    def _slope(self, i: int, atoms: int) -> tuple[np.ndarray, np.ndarray]:
        if self.wanted.derivatives is None:
            return np.empty((0, 3)), np.empty((0, 3))
        label = self.wanted.derivatives.get(int(self.frames[i]))
        return (np.zeros((1, 3)), np.zeros((atoms, 3))) if label is None else (label.field[None], label.derivative)

    def _samples(self, i: int, epoch: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = None if self.samples is None else self.samples[i]
        if found is None:
            return np.empty((0, 3), dtype=np.float32), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32)
        stored, used = len(found.weight), self.wanted.points
        if epoch is None or used == stored:
            return found.point, found.weight, found.density
        # 1 + frame: numpy takes (seed, epoch) and (seed, epoch, 0) for the same seed, and the first orders the frames.
        rng = np.random.default_rng((self.wanted.seed, epoch, 1 + int(self.frames[i])))
        some = rng.choice(stored, used, replace=False)
        return found.point[some], found.weight[some] * np.float32(stored / used), found.density[some]


class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index) in an order that depends on (seed, epoch) alone, so a resumed run sees the batches the

    uninterrupted one would. Of several processes each gets its share (Lightning leaves a DistributedSampler as it is).
    """

    def __init__(self, size: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__(range(size), num_replicas=processes, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.size = size

    def __iter__(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        share = np.resize(order, self.total_size)[self.rank :: self.num_replicas]  # begins anew so that all get as many
        return iter([(self.epoch, i) for i in share.tolist()])


class FitsDataModule(lightning.LightningDataModule):
    """Training and validation frames of one fitted data set, and which of its frames are for testing.

    path: a densnet/fits file; batch_size: frames; validation: how many training frames, from the end, are held out for
    validation; limit: use only the first so many of the others (learning curves; null for all); seed: of the order of
    frames and the choice of points; workers: loader processes; points: how many of the stored real-space samples of a frame
    a training step sees, others every epoch (validation always sees all); overlap_weight: mu of the metric M = J + mu S,
    hartree*bohr; metric: whether frames carry it (`serve` decides for a stage). The metrics are computed when training starts;
    derivatives: densnet/dipole_derivatives files for some of the frames.

    Test frames need whole grids, or at least samples, from which errors of the density are then estimated.
    Raises DataError for a bad file or one with nothing to test on, ConfigError if nothing is left to train on or more points are
    asked for than stored.
    """

    def __init__(
        self,
        path: str,
        batch_size: int,
        validation: int,
        limit: int | None = None,
        seed: int = 0,
        workers: int = 0,
        points: int = 0,
        overlap_weight: float = 0.5,
        metric: bool = True,
        derivatives: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.fits = read_fits(Path(path))
        self.slopes, self.slopes_wanted = slopes_of(self.fits, derivatives), True
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self.points, self.overlap_weight, self.metric = points, overlap_weight, metric
        train = self.fits.indices("train")
        if validation < 1 or batch_size < 1 or len(train) - validation < 1:
            raise ConfigError(
                f"{path} has {len(train)} training frames, validation={validation}, batch_size={batch_size}; "
                "expected at least one frame for each; change dataset.validation or label more"
            )
        self.validation_frames = train[len(train) - validation :]
        self.train_frames = train[: len(train) - validation][:limit]
        self.test_frames = self.fits.indices("test")
        self._check_evaluation()
        if not 0 <= points <= self._stored():
            raise ConfigError(
                f"dataset.points is {points} but {path} stores {self._stored()} samples of a training frame; expected 0 to that; "
                "lower it, or fit again with a larger fit.points_train"
            )

    def _check_evaluation(self) -> None:
        """Raise DataError now, before hours of training, if no test frame has an SCF density to be compared with."""
        fits, frames = self.fits, self.test_frames
        sampled = int((np.diff(fits.sample_ptr)[frames] > 0).sum())
        if np.isin(frames, fits.grid_frame).any():
            return
        if not sampled:
            raise DataError(
                f"{fits.path} has {len(frames)} test frames and the SCF density in none of them; expected at least one to "
                "evaluate on; fit again with fit.points_test or fit.grid_frames_test > 0, or label test frames"
            )
        log.warning("%s: the density will be evaluated on the samples of %d test frames; no whole grid", fits.path, sampled)

    def _stored(self) -> int:
        """Samples that every frame to train or validate on has."""
        frames = np.concatenate([self.train_frames, self.validation_frames])
        return int(np.diff(self.fits.sample_ptr)[frames].min())

    def serve(self, metric: bool, points: bool, derivatives: bool = False) -> None:
        """Say before training what the stage wants of the frames; the rest is left out.

        Raises ConfigError if it wants points or dipole derivatives and the settings give none.
        """
        if derivatives and not np.isin(self.train_frames, list(self.slopes)).any():
            raise ConfigError(
                "this stage learns dipole derivatives but no training frame has any; expected files of task=derivatives in "
                "dataset.derivatives; compute them, or leave that objective out"
            )
        if points and not self.points:
            raise ConfigError(
                f"this stage needs real-space samples but dataset.points is 0; expected 1 to {self._stored()}, which "
                f"{self.fits.path} stores of a frame; set dataset.points, or fit again with fit.points_train > 0"
            )
        self.metric, self.points, self.slopes_wanted = metric, self.points if points else 0, derivatives

    def check_basis(self, basis_hash: str, owner: str) -> None:
        """Raise BasisError unless the data were fitted in this basis. owner: who wants it, for the message."""
        if basis_hash != self.fits.basis.hash:
            raise BasisError(
                f"{self.fits.path} was fitted in basis {self.fits.basis.name} ({self.fits.basis.hash}) but {owner} has basis "
                f"{basis_hash}; expected the same; fit the labels again with that basis, or take another"
            )

    def _loader(self, frames: np.ndarray, sampler: EpochSampler | None) -> DataLoader:
        slopes = self.slopes if self.slopes_wanted and self.slopes else None
        wanted = Wanted(self.overlap_weight if self.metric else None, self.points, self.seed, slopes)
        dataset = FrameDataset(self.fits, frames, wanted)
        return DataLoader(dataset, batch_size=self.batch_size, sampler=sampler, num_workers=self.workers)

    def train_dataloader(self) -> DataLoader:
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(self.train_frames, EpochSampler(len(self.train_frames), self.seed, rank, processes))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validation_frames, None)
