"""A fitted data set small enough to pass on: without whole grids, and with fewer real-space samples.

python -m densnet.slim data/ethanol/fits.h5 datasets/ethanol.h5 --points-train 500 --points-test 500
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

from densnet.cli import run
from densnet.data.fits import PACKED, SCHEMA, VERSION, read_fits
from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import ConfigError

SAMPLES = ("sample_point", "sample_weight", "sample_density")


def kept_samples(pointer: np.ndarray, wanted: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A random part of every frame's samples, and by how much their weights must grow to leave integrals unbiased.

    pointer: (F+1,) of the stored samples; wanted: (F,) at most so many. Returns indices, factors and the new pointer.
    """
    index, factor, ends = [], [], [0]
    for f, (start, stop) in enumerate(pairwise(pointer)):
        n = min(int(wanted[f]), int(stop - start))
        # By chance, not the first n: samples are stored in the order of the grid, atom by atom.
        index.append(start + np.sort(np.random.default_rng((seed, f)).choice(stop - start, n, replace=False)))
        factor.append(np.full(n, (stop - start) / max(n, 1)))
        ends.append(ends[-1] + n)
    return np.concatenate(index).astype(np.int64), np.concatenate(factor), np.array(ends, dtype=np.int64)


def slim(source: Path, target: Path, points_train: int, points_test: int, seed: int = 0) -> None:
    """Write `target`, a densnet/fits file like `source` without grids and with at most so many samples of every frame.

    Raises DataError if the source is not a whole densnet/fits file, ConfigError for a negative number of points or if both
    are one file.
    """
    if points_train < 0 or points_test < 0:
        raise ConfigError(f"{points_train} training and {points_test} test points wanted; expected 0 or more; correct it")
    if source.resolve() == target.resolve():
        raise ConfigError(f"{source} would be replaced by less than it holds; expected another file to write; name one")
    fits = read_fits(source)
    wanted = np.where(fits.split == "train", points_train, points_test)
    index, factor, pointer = kept_samples(fits.sample_ptr, wanted, seed)
    with open_hdf5(source, SCHEMA, VERSION) as old, create_hdf5(target, SCHEMA, VERSION) as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for name in old:
            if name.startswith(("sample_", "grid_")) or name == "fit_nmae":
                continue
            old.copy(name, new)
        for name in SAMPLES:
            values = old[name][:][index]
            if name == "sample_weight":
                values = (values * factor).astype(np.float32)
            # One chunk per frame, as in the original: frames are read one by one.
            chunk = (max(1, int(np.diff(pointer).max(initial=1))), *values.shape[1:])
            new.create_dataset(
                name,
                data=values,
                maxshape=(None, *values.shape[1:]),
                chunks=chunk if len(values) else (1, *values.shape[1:]),
                **PACKED,
            )
        new["sample_ptr"] = pointer
        new["grid_frame"], new["grid_ptr"] = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
        new["fit_nmae"] = np.zeros(0)
        for name, shape in (("grid_point", (0, 3)), ("grid_weight", (0,)), ("grid_density", (0,))):
            new.create_dataset(name, shape, dtype="f4")
    read_fits(target)  # what is passed on can be read


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.slim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--points-train", type=int, default=500, help="samples kept of every training frame")
    parser.add_argument("--points-test", type=int, default=500, help="samples kept of every test frame")
    arguments = parser.parse_args()
    slim(arguments.source, arguments.target, arguments.points_train, arguments.points_test)
    print(f"{arguments.target}: {arguments.target.stat().st_size / 1e6:.1f} MB of {arguments.source.stat().st_size / 1e6:.1f}")


if __name__ == "__main__":
    run(main)
