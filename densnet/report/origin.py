"""The sections of what a run started from: model, trajectory, and settings of programs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from densnet.errors import DataError, ModelError
from densnet.report.blocks import Block, Fold, Section, columns
from densnet.report.parts import Part
from densnet.report.records import record, settings
from densnet.report.sources import Source, find, read
from densnet.simulation.trajectory_file import check_schema, dataset, opened
from densnet.units import FS_PER_AU, PS_PER_AU

HYDRA = ".hydra/config.yaml"


def model_part(folder: Path) -> Part:
    """Raises ModelError if the folder has no model.json of densnet."""
    source = find(folder, "model.json") if folder.is_dir() else None
    if source is None:
        raise ModelError(f"no model in {folder}; expected a folder with model.json; check the path")
    content = source.json()
    if not isinstance(content, Mapping) or content.get("schema") != "densnet/model":
        raise ModelError(f"{source.path} is no densnet/model; expected model.json of a model; check the path")
    basis, provenance = content.get("basis") or {}, dict(content.get("provenance") or {})
    recipes = provenance.pop("recipe", None) or []
    blocks: list[Block] = [
        *record("Model", {"hash": content.get("hash"), "version": content.get("version"), "units": content.get("units")}),
        settings("Architecture", content.get("architecture") or {}),
        settings("Where it comes from", {name: _parsed(value) for name, value in provenance.items()}),
        columns("Basis", ("Quantity", "Value"), [(n, basis[n]) for n in ("name", "hash", "xc", "ao_basis") if n in basis]),
    ]
    for i, recipe in enumerate(recipes, start=1):
        blocks.append(
            Fold(f"Stage {i} of {len(recipes)} of its training: every setting", (settings(f"Stage {i}", _parsed(recipe)),))
        )
    return Part(Section("model", "Model", tuple(blocks)), (), (source,))


def _parsed(value: Any) -> Any:
    """JSON in a string, as level and recipe are; anything else stays what it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def trajectory_part(path: Path) -> Part:
    """What a trajectory states about itself; none of its frames is read. Raises DataError if it is no densnet trajectory."""
    with opened(path) as file:
        check_schema(path, file)
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        frames, replicas = dataset(path, file, "energy").shape
        frozen = file.get("frozen_from")
        lost = int((frozen[:] >= 0).sum()) if isinstance(frozen, h5py.Dataset) else 0
        atoms = dataset(path, file, "number").shape[-1]
        if not isinstance(attributes.get("time_step"), (int, float)):
            raise DataError(f"{path} states no time_step; expected a densnet trajectory; the file is damaged, run again")
    step = attributes["time_step"]
    size: dict[str, Any] = {
        "file": str(path), "frames": frames, "replicas": replicas, "replicas that failed": lost, "atoms": atoms,
        "time_between_frames_fs": step * FS_PER_AU, "length_ps": max(frames - 1, 0) * step * PS_PER_AU,
    }  # fmt: skip
    blocks = [*record("Trajectory", size), settings("As stated in the file, in atomic units (temperature in kelvin)", attributes)]
    summary = find(path.parent, f"{path.stem}.json")
    if summary is not None:
        blocks += record("Summary of the run", summary.json())
    return Part(Section("trajectory", "Trajectory", tuple(blocks)), (), () if summary is None else (summary,))


def _plain(value: Any) -> Any:
    return (
        value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value.decode() if isinstance(value, bytes) else value
    )


def settings_part(places: list[Path]) -> Part | None:
    """Every setting of the programs that ran: YAML files, or folders in which Hydra left .hydra/config.yaml. None without any.

    Raises DataError if a place is neither.
    """
    sources: list[Source] = []
    for place in places:
        found = find(place, HYDRA, "config.yaml") if place.is_dir() else read(place)
        if found is None:
            raise DataError(f"{place} has no {HYDRA}; expected a folder that Hydra wrote, or a YAML file; check the path")
        sources.append(found)
    if not sources:
        return None
    folds = tuple(Fold(str(s.path), (settings(str(s.path), s.yaml()),)) for s in sources)
    return Part(Section("settings", "Settings of the programs", folds), (), tuple(sources))


def left_by_hydra(folders: list[Path]) -> list[Path]:
    """Those of these folders in which Hydra left the settings of a run."""
    return [folder for folder in dict.fromkeys(folders) if (folder / HYDRA).is_file()]
