"""The steps of a training run that train.py strings together."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from densnet import files
from densnet.data.datamodule import FitsDataModule
from densnet.errors import ConfigError, ModelError
from densnet.model.checkpoint import Architecture, ModelFile, Provenance, build, read_model, save_model
from densnet.model.densnet import DensNet

log = logging.getLogger(__name__)


def start_model(
    architecture: Architecture, data: FitsDataModule, warm_start: str | None, energy: bool, energy_start: str | None = None
) -> ModelFile:
    """A model for this data: fresh, or continued from a saved one.

    A warm start takes every network the saved model has (its architecture wins over the configured one, so weights fit) and
    builds the others; a saved density network with fixed exponents gets flexible ones, starting where they were, if the
    configured one has them, and a saved energy network gets norms at least as smooth as configured. energy: whether this stage
    trains an energy network; without it the result has none (an untrained one, or one made for another density, would give
    energies that mean nothing). energy_start: another saved model, whose energy network is taken instead and trained on.
    Raises BasisError if a saved model has another basis than the data, ConfigError if energy_start has no energy network or
    energy is false.
    """
    basis, provenance = data.fits.basis, Provenance()
    saved = read_model(warm_start) if warm_start else None
    with_energy, origin = saved, warm_start
    if energy_start is not None:
        with_energy, origin = read_model(energy_start), energy_start
        data.check_basis(with_energy.model.basis.hash, f"model {energy_start}")
        if not energy or with_energy.architecture.energy is None:
            found = "the stage trains no energy network" if not energy else "that model has no energy network"
            raise ConfigError(f"init_energy is {energy_start} and {found}; expected both; leave init_energy out")
        provenance = with_energy.provenance
    older = None if with_energy is None else with_energy.architecture.energy
    if saved is not None:
        data.check_basis(saved.model.basis.hash, f"model {warm_start}")
        # Every stage that either network went through, in order; what both have in common once.
        own = saved.provenance.recipe
        provenance = replace(saved.provenance, recipe=(*own, *(stage for stage in provenance.recipe if stage not in own)))
        density = saved.architecture.density
        if density.flexible == 1:
            density = replace(density, flexible=architecture.density.flexible)
        if density != architecture.density:
            log.warning("the density network of %s keeps its settings where model.density has others", warm_start)
        architecture = replace(architecture, density=density)
    if older is not None:
        if architecture.energy is not None:
            wanted = max(older.softening, architecture.energy.softening)
            if energy and wanted > older.softening:
                log.warning(
                    "the energy network of %s goes on with softening %g instead of %g: its energies change at first",
                    origin, wanted, older.softening,
                )  # fmt: skip
            older = replace(older, softening=wanted)
            if energy and older != architecture.energy:
                log.warning("the energy network of %s keeps its settings where model.energy has others", origin)
        architecture = replace(architecture, energy=older)
    if not energy:
        architecture = replace(architecture, energy=None)
    model = build(architecture, basis)
    train = data.train_frames
    atoms = data.fits.atoms_of(train)
    if saved is None:
        model.density.frame.fit_scales(data.fits.coefficient[atoms], data.fits.number[atoms])
    else:
        fresh = {k: v for k, v in model.density.state_dict().items() if k.startswith("exponents.")}
        model.density.load_state_dict({**fresh, **saved.model.density.state_dict()})
    if model.energy is not None:
        if with_energy is not None and with_energy.model.energy is not None:
            fresh = {k: v for k, v in model.energy.state_dict().items() if k.startswith("from_exponents.")}
            model.energy.load_state_dict({**fresh, **with_energy.model.energy.state_dict()})
        else:
            model.energy.frame.fit_scales(data.fits.coefficient[atoms], data.fits.number[atoms])
            fit_references(model, data, train)
    return ModelFile(
        model, architecture, replace(provenance, data_hash=data.fits.labels_hash, level=json.dumps(asdict(data.fits.level)))
    )


@torch.no_grad()
def fit_references(model: DensNet, data: FitsDataModule, frames: np.ndarray) -> None:
    """Shift per element: least squares of the energies less the free atoms; scale: RMS force times one bohr."""
    assert model.energy is not None
    fits, n_elements = data.fits, len(model.basis.numbers)
    counts = np.zeros((len(frames), n_elements))
    for i, f in enumerate(frames):
        np.add.at(counts[i], model.basis.rows(fits.frame(int(f)).number), 1)
    free = np.array([e.atom.energy for e in model.basis.elements])
    shift, *_ = np.linalg.lstsq(counts, fits.energy[frames] - counts @ free, rcond=None)
    forces = fits.force[fits.atoms_of(frames)]
    model.energy.shift.copy_(torch.as_tensor(shift))
    model.energy.scale.fill_(float(np.sqrt(np.mean(forces**2))))


def find_checkpoint(wanted: str | None, runs: Path | str, identity: str) -> str | None:
    """The checkpoint to resume from. wanted: null (start anew), a path, or "auto".

    auto takes the newest last.ckpt below `runs` whose folder says it is the same run (`identity`, see mark_run), and starts
    anew if there is none. Raises ModelError if a path does not exist, ConfigError if it is of a run with another optimiser.
    """
    if wanted is None:
        return None
    if wanted != "auto":
        if not Path(wanted).is_file():
            raise ModelError(f"no checkpoint at {wanted}; expected a .ckpt file; check the path or use ckpt_path=auto")
        before = _identity(Path(wanted).parent.parent)
        if before is not None and before != identity:
            _refuse_other_optimizer(wanted, before, identity)
            log.warning("%s is of a run with other settings; its weights go on in the model and stage configured now", wanted)
        return str(wanted)
    candidates = [p for p in Path(runs).glob("*/checkpoints/last.ckpt") if _identity(p.parent.parent) == identity]
    if not candidates:
        log.warning("ckpt_path=auto: no earlier run of these settings below %s; starting anew", runs)
        return None
    newest = max(candidates, key=lambda p: p.stat().st_mtime)
    log.warning("resuming from %s", newest)
    return str(newest)


def _refuse_other_optimizer(checkpoint: str, before: str, now: str) -> None:
    """The state of one optimiser means nothing to another; it would fail, or go wrong, in the middle of a step."""
    found, wanted = (json.loads(text)["stage"]["optimizer"].get("method", "adam") for text in (before, now))
    if found != wanted:
        raise ConfigError(
            f"{checkpoint} is of a run with {found} and stage.optimizer.method is {wanted}; expected the same; set "
            f"stage.optimizer.method={found}, or start from the model of that run with init="
        )


def _identity(folder: Path) -> str | None:
    path = folder / "identity.json"
    return path.read_text() if path.is_file() else None


def mark_run(folder: Path | str, identity: str) -> None:
    """Say in the run folder which settings it belongs to, for ckpt_path=auto."""
    files.write_text(Path(folder) / "identity.json", identity)


def refuse_sweep_with_ddp(multirun: bool, strategy: str, devices: object, launcher: str) -> None:
    """Subprocess DDP inside a Hydra sweep would start the whole sweep again in every process."""
    if multirun and "ddp" in strategy and str(devices) not in ("1", "[0]") and "submitit" not in launcher:
        raise ConfigError(
            f"a sweep (-m) with strategy={strategy} on {devices} devices would run the sweep once per device; "
            "expected one device per job; use trainer.devices=1 or hydra/launcher=submitit_slurm with tasks_per_node = devices"
        )


def export(folder: str | Path, file: ModelFile, recipe: str) -> str:
    """Save the trained model (with EMA: the averaged weights, which the callback has copied in). Returns its hash."""
    provenance = replace(file.provenance, recipe=(*file.provenance.recipe, recipe))
    model_hash = save_model(folder, file.model, file.architecture, provenance)
    log.warning("model %s saved in %s", model_hash, folder)
    return model_hash
