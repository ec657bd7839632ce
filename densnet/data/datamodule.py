"""Training data as torch_geometric graphs; inputs (Molecules) and labels stay apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import Data
from torch_geometric.data.data import BaseData
from torch_geometric.loader import DataLoader

from densnet.data.fits import Fits, read_fits
from densnet.errors import BasisError, ConfigError, DataError
from densnet.structures import Molecules


class Frame(Data):
    """One labelled frame. Inputs: number (N,), position (N, 3), charge (1,). Labels: energy (1,), force (N, 3),

    dipole (1, 3), coefficient (N, width), metric (n*n,) float32 with n existing functions, functions (1,) = n,
    frame (1,) its index in the file.
    """


class Frames(Protocol):
    """A batch of frames as torch_geometric collates them: the fields of Frame, and which molecule every atom is of."""

    number: Tensor
    position: Tensor
    charge: Tensor
    energy: Tensor
    force: Tensor
    dipole: Tensor
    coefficient: Tensor
    metric: Tensor
    functions: Tensor
    frame: Tensor
    batch: Tensor
    num_graphs: int


def inputs(batch: Frames) -> Molecules:
    """What a network may see of a batch."""
    return Molecules(batch.number, batch.position, batch.charge, batch.batch, batch.num_graphs)


class FrameDataset(Sequence[BaseData]):
    """Some frames of a fitted data set in memory; the metric is kept packed and unfolded when a frame is asked for."""

    def __init__(self, fits: Fits, frames: np.ndarray) -> None:
        self.fits, self.frames = fits, frames
        self.packed = fits.metrics(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, i: int) -> Frame:  # pyright: ignore[reportIncompatibleMethodOverride] - frames one by one
        fits, f = self.fits, int(self.frames[i])
        atoms = fits.atoms(f)
        n = int((np.sqrt(8 * len(self.packed[i]) + 1) - 1) / 2)
        rows, columns = np.tril_indices(n)
        metric = np.empty((n, n), dtype=np.float32)
        metric[rows, columns] = self.packed[i]
        metric[columns, rows] = self.packed[i]
        return Frame(
            num_nodes=atoms.stop - atoms.start,
            number=torch.as_tensor(fits.number[atoms], dtype=torch.long),
            position=torch.as_tensor(fits.position[atoms], dtype=torch.float64),
            charge=torch.tensor([float(fits.charge[f])], dtype=torch.float64),
            energy=torch.tensor([fits.energy[f]], dtype=torch.float64),
            force=torch.as_tensor(fits.force[atoms], dtype=torch.float64),
            dipole=torch.as_tensor(fits.dipole[f][None], dtype=torch.float64),
            coefficient=torch.as_tensor(fits.coefficient[atoms], dtype=torch.float64),
            metric=torch.as_tensor(metric.ravel()),
            functions=torch.tensor([n]),
            frame=torch.tensor([f]),
        )


class EpochSampler(Sampler[int]):
    """A permutation that depends on (seed, epoch) alone, so a resumed run sees the batches the uninterrupted one would."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self.seed, self.epoch)).permutation(self.size).tolist())


class FitsDataModule(lightning.LightningDataModule):
    """Training and validation frames of one fitted data set, and which of its frames are for testing.

    path: a densnet/fits file; batch_size: frames; validation: how many training frames, from the end, are held out for
    validation; limit: use only the first so many of the others (learning curves; null for all); seed: of the order of
    frames; workers: loader processes. Raises DataError for a bad file or one with nothing to test on, ConfigError if
    nothing is left to train on.
    """

    def __init__(
        self, path: str, batch_size: int, validation: int, limit: int | None = None, seed: int = 0, workers: int = 0
    ) -> None:
        super().__init__()
        self.fits = read_fits(Path(path))
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        train = self.fits.indices("train")
        if validation < 1 or batch_size < 1 or len(train) - validation < 1:
            raise ConfigError(
                f"{path} has {len(train)} training frames, validation={validation}, batch_size={batch_size}; "
                "expected at least one frame for each; change dataset.validation or label more"
            )
        self.validation_frames = train[len(train) - validation :]
        self.train_frames = train[: len(train) - validation][:limit]
        self.test_frames = self.fits.indices("test")
        if not np.isin(self.test_frames, self.fits.grid_frame).any():
            raise DataError(
                f"{path} has {len(self.test_frames)} test frames and a density grid for none of them; expected at least one to "
                "evaluate on; fit again with fit.grid_frames_test > 0, or label test frames"
            )

    def check_basis(self, basis_hash: str, owner: str) -> None:
        """Raise BasisError unless the data were fitted in this basis. owner: who wants it, for the message."""
        if basis_hash != self.fits.basis.hash:
            raise BasisError(
                f"{self.fits.path} was fitted in basis {self.fits.basis.name} ({self.fits.basis.hash}) but {owner} has basis "
                f"{basis_hash}; expected the same; fit the labels again with that basis, or take another"
            )

    def _loader(self, frames: np.ndarray, sampler: EpochSampler | None) -> DataLoader:
        return DataLoader(FrameDataset(self.fits, frames), batch_size=self.batch_size, sampler=sampler, num_workers=self.workers)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train_frames, EpochSampler(len(self.train_frames), self.seed))

    def val_dataloader(self) -> DataLoader:
        return self._loader(self.validation_frames, None)
