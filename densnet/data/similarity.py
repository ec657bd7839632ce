"""How far test frames are from the training frames: a model is only as honest as its test frames are new."""

from __future__ import annotations

import numpy as np

from densnet.data.fits import Fits
from densnet.data.labels import Labels


def nearest_rmsd(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(T, N, 3) and (F, N, 3) of the same atoms in the same order -> (T,): RMSD of each test frame from its nearest training

    frame, in the unit of the positions. Best superposition by rotation and translation (W. Kabsch, Acta Cryst. A 32, 922
    (1976)). Mirror images count as different. Permutations of equal atoms are not tried, so the true distance can be smaller.
    """
    test, train = (positions - positions.mean(1, keepdims=True) for positions in (test, train))
    size = (train**2).sum((1, 2))
    nearest = np.empty(len(test))
    for k, one in enumerate(test):
        covariance = np.einsum("ax,fay->fxy", one, train)
        overlap = np.linalg.svd(covariance, compute_uv=False)
        overlap[:, 2] *= np.sign(np.linalg.det(covariance))
        square = (one**2).sum() + size - 2 * overlap.sum(1)
        nearest[k] = np.sqrt(max(square.min(), 0.0) / len(one))
    return nearest


def nearest_training_rmsd(data: Fits | Labels, frames: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(len(frames),) bohr; NaN for a frame whose atoms, in their order, are those of no training frame. See nearest_rmsd."""

    def kinds(indices: np.ndarray) -> dict[bytes, list[int]]:
        found: dict[bytes, list[int]] = {}
        for k, f in enumerate(indices.tolist()):
            found.setdefault(data.frame(f).number.tobytes(), []).append(k)
        return found

    def positions(indices: np.ndarray) -> np.ndarray:
        return np.array([data.frame(f).position for f in indices.tolist()])

    nearest, known = np.full(len(frames), np.nan), kinds(train)
    for atoms, where in kinds(frames).items():
        if atoms in known:
            nearest[where] = nearest_rmsd(positions(frames[where]), positions(train[known[atoms]]))
    return nearest
