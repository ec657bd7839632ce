"""A model on disk: a folder with model.json (what it is) and model.safetensors (weights and scales). No pickle.

model.json holds schema, version, the architecture, the whole basis, the level of theory, units, the hash of the training
data, and the recipe. `hash` covers the weights, the architecture and the basis: a trajectory names the model it ran on by it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from densnet.basis.shells import Basis
from densnet.errors import ConfigError, ModelError
from densnet.files import replacing
from densnet.model.density import DensityNetwork
from densnet.model.densnet import DensNet
from densnet.model.energy import EnergyNetwork
from densnet.units import ANGSTROM_PER_BOHR

SCHEMA, VERSION = "densnet/model", 1
SHARP = 1e-3  # softening of the norms in files from before it was a setting


def _check_rank(rank: int | None) -> None:
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 1):
        raise ConfigError(f"rank is {rank!r}; expected a whole number of at least 1, or null for no limit; see conf/model")


@dataclass(frozen=True)
class DensitySettings:
    """Architecture of the density network; see DensityNetwork. cutoff in angstrom (this is an edge)."""

    channels: int
    lmax: tuple[int, ...]
    cutoff_angstrom: float = 5.0
    radial: int = 8
    hidden: int = 64
    neighbours: float = 8.0
    parity: str = "natural"
    overlap_weight: float = 0.5
    flexible: float = 1.0
    rank: int | None = None
    high_channels: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lmax", tuple(self.lmax))
        if not 1.0 <= self.flexible <= 2.0:
            raise ConfigError(
                f"flexible is {self.flexible:g}; expected 1 (fixed exponents) to 2 (between half and twice those of the basis)"
            )
        if self.parity not in ("natural", "both"):
            raise ConfigError(f"parity is {self.parity!r}; expected 'natural' or 'both'; see conf/model")
        _check_rank(self.rank)
        if self.high_channels is not None and not 1 <= self.high_channels <= self.channels:
            raise ConfigError(
                f"high_channels is {self.high_channels}; expected 1 to channels={self.channels}, or null for as many as those"
            )
        if self.channels < 1 or not self.lmax or self.cutoff_angstrom <= 0:
            raise ConfigError(
                f"density network with channels={self.channels}, lmax={self.lmax}, cutoff_angstrom={self.cutoff_angstrom}; "
                "expected positive values and at least one layer; see conf/model"
            )


@dataclass(frozen=True)
class EnergySettings:
    """Architecture of the energy network; see EnergyNetwork. cutoff in angstrom (this is an edge)."""

    channels: int
    layers: int = 2
    lmax: int = 2
    cutoff_angstrom: float = 5.0
    radial: int = 8
    hidden: int = 64
    neighbours: float = 8.0
    invariants: int = 8
    overlap_weight: float = 0.5
    density: bool = True
    rank: int | None = None
    softening: float = 0.1

    def __post_init__(self) -> None:
        if not (isinstance(self.softening, (int, float)) and 0 < self.softening < inf):
            raise ConfigError(f"softening is {self.softening!r}; expected a positive number; see conf/model")
        _check_rank(self.rank)
        if self.channels < 1 or self.layers < 0 or self.lmax < 0 or self.cutoff_angstrom <= 0:
            raise ConfigError(
                f"energy network with channels={self.channels}, layers={self.layers}, lmax={self.lmax}, "
                f"cutoff_angstrom={self.cutoff_angstrom}; expected positive values; see conf/model"
            )
        if not (self.density or self.layers):
            raise ConfigError(
                "energy network with density=false and layers=0; expected the density or the geometry as input; set one of them"
            )


@dataclass(frozen=True)
class Architecture:
    """What to build. energy is None for a model of the density alone."""

    density: DensitySettings
    energy: EnergySettings | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from: data and level hash, and the settings of every stage it went through, as JSON text."""

    data_hash: str = ""
    level: str = ""
    recipe: tuple[str, ...] = ()


def build_density(settings: DensitySettings, basis: Basis) -> DensityNetwork:
    return DensityNetwork(
        basis,
        channels=settings.channels,
        lmax=settings.lmax,
        cutoff=settings.cutoff_angstrom / ANGSTROM_PER_BOHR,
        radial=settings.radial,
        hidden=settings.hidden,
        neighbours=settings.neighbours,
        parity=settings.parity,
        overlap_weight=settings.overlap_weight,
        flexible=settings.flexible,
        rank=settings.rank,
        high_channels=settings.high_channels,
    )


def build_energy(settings: EnergySettings, basis: Basis, flexible: bool) -> EnergyNetwork:
    return EnergyNetwork(
        basis,
        channels=settings.channels,
        layers=settings.layers,
        lmax=settings.lmax,
        cutoff=settings.cutoff_angstrom / ANGSTROM_PER_BOHR,
        radial=settings.radial,
        hidden=settings.hidden,
        neighbours=settings.neighbours,
        invariants=settings.invariants,
        overlap_weight=settings.overlap_weight,
        flexible=flexible,
        density=settings.density,
        rank=settings.rank,
        softening=settings.softening,
    )


def build(architecture: Architecture, basis: Basis) -> DensNet:
    """A fresh, untrained model."""
    flexible = architecture.density.flexible > 1
    energy = None if architecture.energy is None else build_energy(architecture.energy, basis, flexible)
    return DensNet(basis, build_density(architecture.density, basis), energy)


def _hash(weights: dict[str, torch.Tensor], architecture: dict[str, Any], basis: Basis) -> str:
    """architecture: as the file has it, so that a setting which densnet learns later does not change older models."""
    digest = hashlib.sha256(basis.hash.encode() + json.dumps(architecture, sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(folder: Path | str, model: DensNet, architecture: Architecture, provenance: Provenance) -> str:
    """Write the model, replacing one of the same name only when both files are complete. Returns its hash."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    model.hash = _hash(weights, asdict(architecture), model.basis)
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        "hash": model.hash,
        "units": "atomic",
        "architecture": asdict(architecture),
        "provenance": asdict(provenance),
        "basis": json.loads(model.basis.to_json()),
    }
    with replacing(folder / "model.json") as description, replacing(folder / "model.safetensors") as tensors:
        save_file(weights, tensors)
        description.write_text(json.dumps(content, indent=1))
    return model.hash


@dataclass(frozen=True)
class ModelFile:
    """A model read from disk with what its file says of it."""

    model: DensNet
    architecture: Architecture
    provenance: Provenance


def read_model(folder: Path | str, device: torch.device | str = "cpu") -> ModelFile:
    """Read a model folder. Raises ModelError if it is missing, of another version, or does not match its hash."""
    folder = Path(folder)
    description, weights_path = folder / "model.json", folder / "model.safetensors"
    if not description.is_file() or not weights_path.is_file():
        raise ModelError(
            f"no model in {folder}; expected a folder with model.json and model.safetensors; give the folder train.py exported"
        )
    try:
        raw = json.loads(description.read_text())
        if (raw.get("schema"), raw.get("version")) != (SCHEMA, VERSION):
            raise ModelError(
                f"{description} has schema {raw.get('schema')} version {raw.get('version')}; "
                f"expected {SCHEMA} version {VERSION}; use the densnet that wrote it or train again"
            )
        energy = raw["architecture"]["energy"]
        architecture = Architecture(
            DensitySettings(**raw["architecture"]["density"]),
            None if energy is None else EnergySettings(**{"softening": SHARP, **energy}),
        )
        provenance = Provenance(**{**raw["provenance"], "recipe": tuple(raw["provenance"]["recipe"])})
        basis = Basis.from_json(json.dumps(raw["basis"]))
        weights = load_file(weights_path)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(
            f"{folder} cannot be read ({type(error).__name__}: {error}); expected a whole {SCHEMA}; copy it again"
        ) from error
    model = build(architecture, basis)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{weights_path} has weights of other sizes than model.json beside it describes; expected those of one model; "
            "copy both files again"
        ) from error
    if missing or unexpected:
        raise ModelError(
            f"{weights_path} lacks {', '.join(sorted(missing)[:3]) or 'nothing'} and has unknown "
            f"{', '.join(sorted(unexpected)[:3]) or 'nothing'}; expected the weights that model.json beside it describes; "
            "copy both files again, or train again if densnet itself has changed"
        )
    model.hash = _hash(weights, raw["architecture"], basis)
    if model.hash != raw["hash"]:
        raise ModelError(
            f"{folder} has hash {model.hash} but model.json says {raw['hash']}; the two files are not of one model; copy again"
        )
    return ModelFile(model.to(device).eval(), architecture, provenance)


def load_model(folder: Path | str, device: torch.device | str = "cpu") -> DensNet:
    """The model in a folder, ready to predict. Raises ModelError as read_model, ConfigError for a device that is not there."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device is {device} but torch finds no CUDA device; expected cpu, or a CUDA build and driver; use device=cpu"
        )
    return read_model(folder, device).model
