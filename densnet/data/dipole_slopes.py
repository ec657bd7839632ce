"""Which frames of a fitted data set have dipole derivatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from densnet.data.dipole_derivatives import read_dipole_derivatives
from densnet.data.fits import Fits
from densnet.errors import DataError


@dataclass(frozen=True)
class Slope:
    """Label of one frame: field (3,), the unit vector u; derivative (N, 3) d(u . mu)/dR, e, mu about the model's origin."""

    field: np.ndarray
    derivative: np.ndarray


def slopes_of(fits: Fits, paths: Sequence[str]) -> dict[int, Slope]:
    """Dipole derivatives of the frames that have the same geometry, by frame.

    Raises DataError for a bad file, one of another level of theory, or one that has none of the geometries.
    """
    frames = {_key(fits.number[a], fits.position[a], fits.charge[f]): f for f, a in _atoms(fits)}
    found: dict[int, Slope] = {}
    for path in paths:
        data, before = read_dipole_derivatives(path), len(found)
        if data.level != fits.level:
            raise DataError(f"{path} has derivatives of {data.level}, {fits.path} labels of {fits.level}; expected one level")
        for k in range(len(data)):
            atoms = data.atoms(k)
            number, position, field = data.number[atoms].astype(np.int64), data.position[atoms], data.direction[k]
            f = frames.get(_key(number, position, data.charge[k]))
            if f is not None:
                # The model's dipole of an ion is about the centre of nuclear charge, which moves with the atoms.
                share = data.charge[k] * number / number.sum()
                found[f] = Slope(field, data.derivative[atoms] - share[:, None] * field)
        if len(found) == before:
            raise DataError(f"{path} has no geometry of {fits.path} that is new; expected derivatives for some of its frames")
    return found


def _atoms(fits: Fits) -> Iterator[tuple[int, slice]]:
    return ((f, fits.atoms(f)) for f in range(len(fits)))


def _key(number: np.ndarray, position: np.ndarray, charge: float) -> tuple[bytes, bytes, int]:
    return number.astype(np.int64).tobytes(), position.tobytes(), round(float(charge))
