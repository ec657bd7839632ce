"""The house rules that a program can check: imports go one way, edges stay edges, nothing is unpickled, files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "densnet"
PROGRAMS = ("train.py", "simulate.py", "spectra.py")

# Package -> what it may import of densnet. docs/architecture.md draws the same picture.
FOUNDATION = {"units", "errors", "files"}
STRUCTURES = FOUNDATION | {"basis"}
DATA = STRUCTURES | {"structures"}
LAYERS = DATA | {"data"}
MODEL = LAYERS | {"nn", "observables"}
PROGRAM = FOUNDATION | {"cli", "record", "steps"}
ALLOWED = {
    "units": set(),
    "errors": set(),
    "files": set(),
    "allocator": set(),
    "cli": {"errors", "allocator"},
    "basis": FOUNDATION,
    "structures": STRUCTURES,
    "data": DATA,
    "nn": LAYERS,
    "observables": LAYERS,
    "model": MODEL,
    "training": MODEL | {"model", "spectra", "record"},
    "simulation": MODEL | {"model", "cli"},
    "spectra": FOUNDATION,
    "reference": LAYERS | {"cli", "record", "observables", "spectra"},
    "record": FOUNDATION,
    "slim": LAYERS | {"cli"},
    "join": LAYERS | {"cli"},
    "steps": FOUNDATION,
    "harmonic": PROGRAM | {"data", "structures", "model", "spectra"},
    "predict": MODEL | {"model", "reference", "cli"},
    "report": FOUNDATION | {"cli", "simulation", "record"},
    "demo": PROGRAM,
    "density_study": PROGRAM,
    "spectra_study": PROGRAM | {"model"},
    "energy_study": PROGRAM | {"density_study", "model"},
}
MODULES = tuple(
    f"densnet/{name}" for name in ("reference/__main__.py", "harmonic.py", "predict/__main__.py", "report/__main__.py")
)
# Library -> the only places that may import it; a folder stands for all its files.
ONLY_IN = {
    "hydra": ("densnet/cli.py", *MODULES, *PROGRAMS),
    "omegaconf": ("densnet/cli.py", *MODULES, *PROGRAMS),
    "wandb": (),  # Lightning's logger speaks to it
    "pyscf": ("densnet/reference/",),
    "tblite": ("densnet/reference/",),
    "lightning": ("densnet/training/", "densnet/data/datamodule.py", "train.py"),
    **dict.fromkeys(("pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"), ()),
}
NUMPY_ONLY = ("torch", "e3nn", "lightning", "torch_geometric")  # not in spectra
LONGEST = 300


def imports(tree: ast.Module, path: Path) -> set[str]:
    """Full names of everything a module imports, relative imports resolved; path is relative to the repository."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(path.parts[: len(path.parts) - node.level]) if node.level else ""
            origin = ".".join(part for part in (base, node.module) if part)
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def unsafe_calls(tree: ast.Module) -> list[str]:
    """Calls that may unpickle: torch.load without weights_only=True, anything with weights_only=False or allow_pickle=True."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        if ast.unparse(node.func) == "torch.load" and "weights_only" not in keywords:
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if keywords.get("weights_only") is False or keywords.get("allow_pickle") is True:
            found.append(f"line {node.lineno}: {ast.unparse(node.func)} would unpickle")
    return found


def faults(path: Path, text: str) -> list[str]:
    """What is wrong with a file of this text at this path (relative to the repository)."""
    tree, name = ast.parse(text), path.as_posix()
    room = path.parts[1].removesuffix(".py") if path.parts[0] == "densnet" else None
    found = unsafe_calls(tree)
    for full in sorted(imports(tree, path)):
        top, *rest = full.split(".")
        if top == "densnet" and room is not None and rest and rest[0] not in ("__version__", room):
            if room not in ALLOWED:
                found.append(f"{room} has no place in the picture")
            elif rest[0] not in ALLOWED[room]:
                found.append(f"{room} imports {full}")
        if top in ONLY_IN and not any(
            name == place or (place.endswith("/") and name.startswith(place)) for place in ONLY_IN[top]
        ):
            found.append(f"imports {full}, which belongs to {', '.join(ONLY_IN[top]) or 'nobody'}")
        if room == "spectra" and top in NUMPY_ONLY:
            found.append(f"spectra imports {full}; it is numpy only")
    if room is not None and text.count("\n") > LONGEST:
        found.append(f"{text.count(chr(10))} lines; at most {LONGEST}")
    return found


FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / program for program in PROGRAMS)])


@pytest.mark.parametrize("path", [path.relative_to(ROOT) for path in FILES], ids=str)
def test_the_file_keeps_the_house_rules(path: Path) -> None:
    assert faults(path, (ROOT / path).read_text()) == []


def test_the_picture_has_no_circle_and_every_room() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    assert rooms <= set(ALLOWED)
    below: dict[str, set[str]] = {}
    while len(below) < len(ALLOWED):  # take away what rests only on what was taken away before
        ready = [room for room in ALLOWED if room not in below and ALLOWED[room] <= set(below)]
        assert ready, f"circle among {set(ALLOWED) - set(below)}"
        below |= {room: ALLOWED[room] for room in ready}


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("densnet/basis/new.py", "from densnet.model.densnet import DensNet", "basis imports densnet.model"),
        ("densnet/basis/new.py", "from ..model import densnet", "basis imports densnet.model"),
        ("densnet/nn/new.py", "from densnet import observables", "nn imports densnet.observables"),
        ("densnet/spectra/new.py", "import torch", "numpy only"),
        ("densnet/data/new.py", "def f():\n    import pyscf.gto", "imports pyscf.gto"),
        ("densnet/model/new.py", "from omegaconf import DictConfig", "imports omegaconf.DictConfig"),
        ("densnet/training/new.py", "import wandb", "nobody"),
        ("densnet/training/new.py", "import torch\ntorch.load('x')", "without weights_only"),
        ("densnet/data/new.py", "import numpy as np\nnp.load('x', allow_pickle=True)", "unpickle"),
        ("train.py", "import pickle", "nobody"),
        ("densnet/utils.py", "from densnet.units import BOLTZMANN", "no place"),
        ("densnet/data/new.py", "\n" * 301, "301 lines"),
    ],
)
def test_a_violation_is_seen(path: str, text: str, complaint: str) -> None:
    found = faults(Path(path), text)
    assert len(found) == 1
    assert complaint in found[0]
