"""Several fitted data sets of one basis and level of theory as one: more frames to train on.

python -m densnet.join data/cold/fits.h5 data/ethanol/fits.h5 data/both/fits.h5

Frames keep the order of the files. Validation takes training frames from the end, so the file whose last frames should stay
the validation frames goes last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from densnet.cli import run
from densnet.data.fits import PACKED, SCHEMA, VERSION, FitReport, Fits, read_fits
from densnet.data.store import create_hdf5, open_hdf5
from densnet.errors import BasisError, ConfigError, DataError

PLAIN = ("number", "position", "force", "energy", "charge", "dipole", "quadrupole", "split", "source", "coefficient", "fit_nmae")
POINTERS = {"frame_ptr": "number", "sample_ptr": "sample_weight", "grid_ptr": "grid_weight"}  # and what they point into
LARGE = tuple(f"{kind}_{what}" for kind in ("sample", "grid") for what in ("point", "weight", "density"))
AT_ONCE = 1 << 20  # rows of samples or of grids in memory


def join(sources: Sequence[Path], target: Path) -> None:
    """Write `target`, a densnet/fits file with the frames of all sources, whole or not at all.

    Raises ConfigError for fewer than two sources or a target among them, BasisError for different bases, DataError for
    different levels of theory or a geometry that one file trains on and another tests on.
    """
    if len(sources) < 2 or target.resolve() in {source.resolve() for source in sources}:
        raise ConfigError(
            f"{len(sources)} data sets to be joined in {target}; expected two or more, none of them the file to write"
        )
    fits = [read_fits(source) for source in sources]
    _check(fits)
    with create_hdf5(target, SCHEMA, VERSION) as new:
        parts: list[dict[str, np.ndarray]] = []
        settings: list[str] = []
        before = dict.fromkeys((*POINTERS.values(), "energy"), 0)
        for one in fits:
            with open_hdf5(one.path, SCHEMA, VERSION) as old:
                _extend(new, old)
                parts.append(_small(old, before))
                before = {name: n + len(old[name]) for name, n in before.items()}
                settings.append(str(old.attrs["settings"]))
                kept = {name: old.attrs[name] for name in ("units", "basis", "basis_hash", "level")}
        for name in parts[0]:
            # Every pointer begins with the end of the one before.
            pieces = [part[name][1:] if name in POINTERS and k else part[name] for k, part in enumerate(parts)]
            new.create_dataset(name, data=np.concatenate(pieces), **PACKED)
        new.attrs.update(kept)
        new.attrs["labels_hash"] = hashlib.sha256("".join(one.labels_hash for one in fits).encode()).hexdigest()[:16]
        new.attrs["report"] = json.dumps(asdict(joined_report(fits)))
        new.attrs["settings"] = settings[0] if len(set(settings)) == 1 else json.dumps(settings)
    read_fits(target)  # what is passed on can be read


def _check(fits: Sequence[Fits]) -> None:
    first, used = fits[0], {}
    for one in fits:
        if one.basis.hash != first.basis.hash:
            raise BasisError(
                f"{one.path} was fitted in basis {one.basis.name} ({one.basis.hash}), {first.path} in {first.basis.name} "
                f"({first.basis.hash}); expected the same; fit one of them again in the basis of the other"
            )
        if one.level != first.level:
            raise DataError(f"{one.path} has labels of {one.level}, {first.path} of {first.level}; expected one level of theory")
        for f in range(len(one)):
            key = one.number[one.atoms(f)].tobytes() + one.position[one.atoms(f)].tobytes()
            split, where = used.setdefault(key, (one.split[f], one.path))
            if split != one.split[f]:
                raise DataError(
                    f"frame {f} of {one.path} is for {one.split[f]}, in {where} for {split}; "
                    "expected test frames that nothing is trained on; remove it from one of them"
                )


def _small(file: Any, before: Mapping[str, int]) -> dict[str, np.ndarray]:
    """What fits in memory of one file; frames, atoms and points are counted on from `before`."""
    arrays = {name: file[name][:] for name in PLAIN}
    for name, rows in POINTERS.items():
        arrays[name] = file[name][:] + before[rows]
    return arrays | {"grid_frame": file["grid_frame"][:] + before["energy"]}


def _extend(new: Any, old: Any) -> None:
    """Samples and grids, a piece at a time, in the chunks they had: samples are read frame by frame."""
    for name in LARGE:
        values = old[name]
        if name not in new:
            rows = values.chunks[0] if values.chunks else max(1, min(len(values), AT_ONCE))
            shape = values.shape[1:]
            new.create_dataset(name, (0, *shape), maxshape=(None, *shape), chunks=(rows, *shape), dtype=values.dtype, **PACKED)
        for start in range(0, len(values), AT_ONCE):
            piece, end = values[start : start + AT_ONCE], len(new[name])
            new[name].resize(end + len(piece), axis=0)
            new[name][end:] = piece


def joined_report(fits: Sequence[Fits]) -> FitReport:
    """The worst of the worst, means over the frames they were taken over."""
    reports = [one.report for one in fits]

    def mean(value: str, count: str) -> float | None:
        pairs = [(getattr(r, value), getattr(r, count)) for r in reports if getattr(r, value) is not None]
        return float(np.average([v for v, _ in pairs], weights=[n for _, n in pairs])) if pairs else None

    worst = [r.nmae_percent_worst for r in reports if r.nmae_percent_worst is not None]
    return FitReport(
        frames=sum(r.frames for r in reports),
        functions=reports[0].functions,
        nmae_percent_mean=mean("nmae_percent_mean", "grid_frames"),
        nmae_percent_worst=max(worst, default=None),
        grid_frames=sum(r.grid_frames for r in reports),
        sampled_nmae_percent_mean=mean("sampled_nmae_percent_mean", "sampled_frames"),
        sampled_frames=sum(r.sampled_frames for r in reports),
        electrons_max_error=max(r.electrons_max_error for r in reports),
        dipole_max_error_mD=max(r.dipole_max_error_mD for r in reports),
        condition_worst=max(r.condition_worst for r in reports),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m densnet.join", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    join(arguments.source, arguments.target)
    print(f"{arguments.target}: {len(read_fits(arguments.target))} frames, {arguments.target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
