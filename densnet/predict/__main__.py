"""python -m densnet.predict molecule.xyz model=ethanol [out=folder] [check=pyscf] [cubes=[density]] [surface=true]"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hydra
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from densnet import __version__
from densnet.cli import job, run
from densnet.data.fits import read_fits
from densnet.data.novelty import Seen, seen
from densnet.data.novelty_file import read_seen, write_seen
from densnet.errors import ConfigError, DataError, DensnetError
from densnet.model.checkpoint import load_model, read_model
from densnet.predict.arguments import model_folder, with_molecule
from densnet.predict.comparison import compare, level_of
from densnet.predict.frames import Failed, Wanted, predict, read_frames
from densnet.predict.judgement import basis_of_judgement
from densnet.predict.output import atoms_of, check_cubes, entry, write_cubes, write_prediction, write_surface
from densnet.predict.summary import summary
from densnet.reference.kohn_sham import ScfSettings


@hydra.main(version_base="1.3", config_path="../../conf/predict", config_name="predict")
@job
def main(cfg: DictConfig) -> None:
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    folder = model_folder(str(cfg.model))
    if cfg.seen_from is not None:
        remember(folder, Path(cfg.seen_from))
        return
    OmegaConf.select(cfg, "molecule", throw_on_missing=True)
    if cfg.check not in (None, "pyscf"):
        raise ConfigError(f"check is {cfg.check}; expected pyscf, or nothing")
    cubes = [str(name) for name in cfg.cubes]
    check_cubes(cubes)
    wanted = Wanted(tuple(cfg.charges), cfg.batch_size, cfg.memory_mb, cfg.progress)
    frames = read_frames(str(cfg.molecule), cfg.charge)
    model, provenance = load_model(folder, cfg.device), read_model(folder).provenance
    committee = [load_model(model_folder(str(name)), cfg.device) for name in cfg.committee]
    level = level_of(provenance.level, instantiate(cfg.get("level"))) if cfg.check else None
    record, novelty = known(folder, model.hash)

    out, entries, atoms, results, failed = Path(cfg.out), [], [], [], []
    for frame in predict(model, committee, frames, record, wanted, cfg.device):
        if isinstance(frame, Failed):
            failed.append(frame)
            continue
        try:
            files = write_cubes(out, frame, model.basis, cubes, cfg.cube_spacing, wanted.memory_mb)
            if cfg.surface:
                files.append(write_surface(out, frame, model.basis, cfg.surface_scale, wanted.memory_mb))
        except DensnetError as error:
            failed.append(Failed(frame.index, str(error)))
            continue
        scf = ScfSettings(threads=cfg.threads or 1)
        comparison = None if level is None else compare(frame, level, model.basis, scf, wanted.memory_mb)
        entries.append(entry(frame, comparison, files))
        atoms.append(atoms_of(frame))
        results.append((frame, comparison))
    head = {
        "creator": f"densnet {__version__}",
        "molecule": str(cfg.molecule),
        "model": str(cfg.model),
        "model_hash": model.hash,
        "level_of_theory": json.loads(provenance.level or "null"),
        "committee": {str(name): one.hash for name, one in zip(cfg.committee, committee)},
        "novelty": novelty,
    }
    write_prediction(out, head, entries, atoms, failed)
    print(summary(results, failed, novelty, out))
    if not results:
        raise DataError(f"no frame of {cfg.molecule} could be predicted; {out}/prediction.json says why; see the lines above")


def known(folder: Path, model_hash: str) -> tuple[Seen | None, str]:
    """The record of what the model has seen and how novelty is judged by it, or None and why it is not."""
    try:
        record = read_seen(folder, model_hash)
    except DataError as error:  # a model without the record still predicts; it cannot say what is new to it
        return None, str(error)
    return record, basis_of_judgement(record)


def remember(folder: Path, path: Path) -> None:
    """Write the record of the training frames in a fits file beside the model that was trained on them."""
    file, fits = read_model(folder), read_fits(path)
    if file.provenance.data_hash != fits.labels_hash:
        raise DataError(
            f"{path} has data hash {fits.labels_hash}, the model was trained on {file.provenance.data_hash}; expected those "
            "of the model; give the fits file it was trained on"
        )
    record = seen(fits)
    written = write_seen(folder, record, file.model.hash)
    print(f"{written}: {written.stat().st_size / 1e3:.0f} kB; {basis_of_judgement(record)}")


if __name__ == "__main__":

    def program() -> None:
        sys.argv[1:] = with_molecule(sys.argv[1:])
        main()

    run(program)
