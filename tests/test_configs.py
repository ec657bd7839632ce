"""Every shipped YAML file composes, and every object it names exists and takes the settings it is given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from densnet.data.labels import Level
from densnet.reference.check import CheckSettings
from densnet.reference.fit_dataset import BasisSettings, FitSettings
from densnet.reference.harmonic import HarmonicSettings
from densnet.reference.kohn_sham import ScfSettings
from densnet.reference.sampling import SamplingSettings
from densnet.reference.wigner import WignerSettings

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
SOURCES = {
    "train": ROOT / "train.py",
    "reference": ROOT / "densnet" / "reference" / "__main__.py",
    "simulate": ROOT / "simulate.py",
    "spectra": ROOT / "spectra.py",
    "harmonic": ROOT / "densnet" / "harmonic.py",
    "predict": ROOT / "densnet" / "predict" / "__main__.py",
    "report": ROOT / "densnet" / "report" / "__main__.py",
}
PROGRAMS = tuple(SOURCES)
# Arguments that a program adds itself.
ADDED = {"densnet.training.stage.Stage": {"model"}}
# Sections that the reference program turns into these, without a _target_.
SECTIONS = {
    "level": Level,
    "sampling": SamplingSettings,
    "basis": BasisSettings,
    "scf": ScfSettings,
    "check": CheckSettings,
    "fit": FitSettings,
    "harmonic": HarmonicSettings,
}


def primary(program: str) -> Path:
    """The main configuration file of a program, from its @hydra.main."""
    found = re.search(r'config_path="([^"]+)", config_name="([^"]+)"', SOURCES[program].read_text())
    assert found
    return (SOURCES[program].parent / found[1] / f"{found[2]}.yaml").resolve()


HOMES = {primary(program).parent for program in PROGRAMS}


def visible(program: str) -> set[str]:
    """Groups that Hydra finds when this program runs."""
    return {path.name for path in primary(program).parent.iterdir() if path.is_dir() and path not in HOMES}


def defaults(program: str) -> list[str]:
    """Groups of the defaults list of a program."""
    entries = OmegaConf.load(primary(program)).get("defaults", [])
    keys = [str(key) for entry in entries if isinstance(entry, DictConfig) for key in entry]
    return [key for key in keys if not key.startswith("override ")]


def options(program: str, group: str) -> list[Path]:
    return sorted((primary(program).parent / group).glob("*.yaml"))


def composed(program: str, *overrides: str, hydra: bool = False) -> DictConfig:
    with initialize_config_dir(str(primary(program).parent), version_base="1.3"):
        return compose(primary(program).stem, list(overrides), return_hydra_config=hydra)


CASES = [(program, group, path.stem) for program in PROGRAMS for group in defaults(program) for path in options(program, group)]


def targets(node: object, where: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every mapping with a _target_ below node, with its place."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield where, node
        for key in node:
            if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, str(key)):
                yield from targets(node[key], f"{where}.{key}")
    elif isinstance(node, ListConfig):
        for index, item in enumerate(node):
            yield from targets(item, f"{where}[{index}]")


def misfits(settings: DictConfig) -> list[str]:
    """What the objects named in the settings would refuse: unknown keys, arguments without a value."""
    found = []
    for where, node in targets(settings):
        name = str(node["_target_"])
        given = {str(key) for key in node if not str(key).startswith("_")} | ADDED.get(name, set())
        parameters = inspect.signature(get_object(name)).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            found += [f"{where}.{key}: {name} has no such argument" for key in sorted(given - {p.name for p in parameters})]
        positional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        needed = {p.name for p in parameters if p.default is p.empty and p.kind not in positional}
        found += [f"{where}: {name} needs {key}" for key in sorted(needed - given)]
    return found


def test_every_file_belongs_to_a_program() -> None:
    used = {primary(program) for program in PROGRAMS}
    used |= {path for program in PROGRAMS for group in defaults(program) for path in options(program, group)}
    assert used == set(CONF.rglob("*.yaml"))


@pytest.mark.parametrize(("program", "group", "option"), CASES)
def test_every_option_composes_and_its_objects_take_it(program: str, group: str, option: str) -> None:
    settings = composed(program, f"{group}={option}")
    assert misfits(settings) == []
    for name, usual in SECTIONS.items() if program == "reference" else ():
        kind = WignerSettings if name == "sampling" and option == "wigner" else usual
        known = {field.name for field in fields(kind)} | ({"conformer"} if name == "harmonic" else set())
        assert set(settings[name]) <= known


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_setting_is_hidden_by_a_group_of_another_program(program: str) -> None:
    # Hydra takes key=value for the choice of an option wherever it finds a folder of that name.
    own = {str(key) for key in OmegaConf.load(primary(program))}
    assert own & visible(program) == set()


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_names_every_choice(program: str) -> None:
    text = composed(program, hydra=True).hydra.help.header
    for group in defaults(program):
        assert f"{group}={'|'.join(path.stem for path in options(program, group))}" in text.split()


def test_an_option_changes_something() -> None:
    assert composed("train", "stage=energy").stage.trains == ["energy"]
    assert composed("train", "experiment=ethanol").dataset.path != composed("train", "experiment=water").dataset.path


@pytest.mark.parametrize("program", PROGRAMS)
def test_unknown_keys_and_groups_of_other_programs_fail(program: str) -> None:
    for key in ("no_such_setting", *sorted(visible(program) - set(defaults(program)))[:1]):
        with pytest.raises(ConfigCompositionException, match=key):
            composed(program, f"{key}=water")


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("+stage.optimizer.momentum=1", "OptimizerSettings has no such argument"),
        ("~stage.optimizer.learning_rate", "OptimizerSettings needs learning_rate"),
    ],
)
def test_the_check_sees_keys_that_do_not_fit(override: str, complaint: str) -> None:
    found = misfits(composed("train", override))
    assert len(found) == 1
    assert complaint in found[0]
