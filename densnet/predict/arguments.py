"""How the command line of python -m densnet.predict is read: a geometry file may stand alone, a model may go by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from densnet.errors import ConfigError, ModelError

SHIPPED = Path(__file__).parents[2] / "models"


def with_molecule(arguments: Sequence[str]) -> list[str]:
    """The arguments for Hydra: one without = that is no option becomes molecule='...'; a name or path of any characters.

    Raises ConfigError for a second one, or if molecule=... is there as well.
    """
    out: list[str] = []
    takes_value = {
        "--config-name",
        "-cn",
        "--config-path",
        "-cp",
        "--config-dir",
        "-cd",
        "--package",
        "-p",
        "--cfg",
        "-c",
        "--info",
    }
    bare: list[str] = []
    for k, argument in enumerate(arguments):
        belongs = k > 0 and arguments[k - 1] in takes_value
        if belongs or argument.startswith(("-", "~")) or "=" in argument:
            out.append(argument)
        else:
            bare.append(argument)
    named = [a for a in out if a.startswith("molecule=")]
    if len(bare) + len(named) > 1:
        found = ", ".join([*bare, *named])
        raise ConfigError(f"several molecules: {found}; expected one name or file (which may hold many frames); join the files")
    if bare:
        quoted = bare[0].replace("\\", "\\\\").replace("'", "\\'")
        out.insert(0, f"molecule='{quoted}'")
    return out


def model_folder(name: str) -> Path:
    """The folder of this name, or the model of this name in models/, here or beside the package.

    Raises ModelError if there is none.
    """
    places = (Path(name), Path("models") / name, SHIPPED / name)
    for place in places:
        if (place / "model.json").is_file():
            return place
    known = sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))
    raise ModelError(
        f"no model {name}; expected a folder with model.json and model.safetensors, or one of {', '.join(known) or 'models/*'}"
    )
