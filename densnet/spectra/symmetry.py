"""The symmetry number of a molecule: how many rotations turn it into itself."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

TOLERANCE = 0.05  # bohr
LINEAR = 1e-3  # as in densnet.spectra.harmonic


def symmetry_number(number: np.ndarray, mass: np.ndarray, position: np.ndarray, tolerance: float = TOLERANCE) -> int:
    """Order of the group of proper rotations, 1 for an atom; of a linear molecule 2 if its ends are equal, else 1.

    number: (N,); mass: (N,) electron masses, so that isotopes are different atoms; position: (N, 3) bohr;
    tolerance: bohr, how far from each other an atom and the image of its like may be.
    Each candidate is a rotation about the centre of mass that carries two atoms not in line with it onto two of their likes.
    """
    centred = position - mass @ position / mass.sum()
    kind = np.unique(np.column_stack([number, np.round(mass)]), axis=0, return_inverse=True)[1].ravel()
    _, size, axes = np.linalg.svd(centred * np.sqrt(mass)[:, None], full_matrices=True)
    if size[0] < tolerance:
        return 1
    if size.size < 2 or size[1] < LINEAR * size[0]:
        end_over_end = 2.0 * np.outer(axes[1], axes[1]) - np.eye(3)  # half a turn about an axis across
        return 2 if _maps(end_over_end, centred, kind, tolerance) else 1
    distance = np.linalg.norm(centred, axis=1)
    off_centre = np.flatnonzero(distance > 4 * tolerance).tolist()
    first = min(off_centre, key=lambda i: len(_likes(i, distance, kind, tolerance)))
    across = np.linalg.norm(np.cross(centred, centred[first] / distance[first]), axis=1)
    # The atom farthest from the line through the centre and the first atom fixes the rotation best.
    second = int(np.argmax(across))
    frame = _frame(centred[first], centred[second])
    apart = np.linalg.norm(centred[first] - centred[second])
    found: list[np.ndarray] = []
    for i in _likes(first, distance, kind, tolerance):
        for j in _likes(second, distance, kind, tolerance):
            if i == j or abs(np.linalg.norm(centred[i] - centred[j]) - apart) > 2 * tolerance:
                continue
            rotation = _frame(centred[i], centred[j]) @ frame.T
            if _maps(rotation, centred, kind, tolerance) and all(np.abs(rotation - r).max() > 1e-2 for r in found):
                found.append(rotation)
    return max(1, len(found))


def _likes(i: int, distance: np.ndarray, kind: np.ndarray, tolerance: float) -> list[int]:
    return np.flatnonzero((kind == kind[i]) & (np.abs(distance - distance[i]) < tolerance)).tolist()


def _frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(3, 3) right-handed axes as columns: along `first`, in the plane of both, across it."""
    x = first / np.linalg.norm(first)
    z = np.cross(x, second)
    z /= np.linalg.norm(z)
    return np.column_stack([x, np.cross(z, x), z])


def _maps(rotation: np.ndarray, centred: np.ndarray, kind: np.ndarray, tolerance: float) -> bool:
    distance, partner = KDTree(centred).query(centred @ rotation.T)
    partner = np.asarray(partner)
    return bool(np.max(distance) < tolerance and (kind[partner] == kind).all() and np.unique(partner).size == partner.size)
