"""novelty.safetensors beside a model: what its training data has seen, tied to the model by its hash. No pickle.

Tensors, for every element Z: `Z.mean` (F,), `Z.direction` (F, k), `Z.reference` (R, k), `Z.floor`, `Z.unit` (1,), float32; and
`levels`, `quantile` (L,) float64. Metadata: schema, version, model_hash, data_hash, species (JSON list), frames.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from densnet.data.novelty import Seen, SeenElement
from densnet.errors import DataError
from densnet.files import replacing

SCHEMA, VERSION = "densnet/novelty", 1
NAME = "novelty.safetensors"
FIELDS = ("mean", "direction", "reference")


def write_seen(folder: Path | str, record: Seen, model_hash: str) -> Path:
    """Write the record into the folder of this model, replacing an older one. Returns its path."""
    tensors = {
        "levels": torch.tensor(record.levels, dtype=torch.float64),
        "quantile": torch.tensor(record.quantile, dtype=torch.float64),
    }
    for z, element in zip(record.species, record.elements):
        tensors |= {f"{z}.{name}": getattr(element, name).to(torch.float32).contiguous() for name in FIELDS}
        tensors |= {f"{z}.{name}": torch.tensor([getattr(element, name)], dtype=torch.float32) for name in ("floor", "unit")}
    metadata = {"schema": SCHEMA, "version": str(VERSION), "model_hash": model_hash, "data_hash": record.data_hash}
    metadata |= {"species": json.dumps(record.species), "frames": str(record.frames)}
    path = Path(folder) / NAME
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata)
    return path


def read_seen(folder: Path | str, model_hash: str) -> Seen:
    """The record beside this model. Raises DataError if there is none, or if it is damaged or of another model."""
    path = Path(folder) / NAME
    remedy = f"make it with: python -m densnet.predict model={folder} seen_from=fits.h5 (the data the model was trained on)"
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a record of the training data beside the model; {remedy}")
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            if (head.get("schema"), head.get("version")) != (SCHEMA, str(VERSION)):
                raise DataError(
                    f"{path} has schema {head.get('schema')} version {head.get('version')}; expected {SCHEMA} version {VERSION}; "
                    f"{remedy}"
                )
            if head["model_hash"] != model_hash:
                raise DataError(f"{path} belongs to model {head['model_hash']}, not to {model_hash} beside it; {remedy}")
            species = tuple(int(z) for z in json.loads(head["species"]))
            elements = []
            for z in species:
                mean, direction, reference = (file.get_tensor(f"{z}.{name}").to(torch.float64) for name in FIELDS)
                floor, unit = (float(file.get_tensor(f"{z}.{name}")) for name in ("floor", "unit"))
                elements.append(SeenElement(mean, direction, floor, reference, unit))
            levels, quantile = (tuple(file.get_tensor(name).tolist()) for name in ("levels", "quantile"))
            return Seen(species, tuple(elements), int(head["frames"]), levels, quantile, head["data_hash"])
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}); expected a whole {SCHEMA} file; {remedy}") from error
