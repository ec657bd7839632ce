"""The study of the spectra: its commands are ones the programs take, and it collects what they wrote."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from densnet.errors import ConfigError
from densnet.spectra_study import BANDS, collect, named_path, plan
from densnet.steps import ROOT, Step


@pytest.fixture
def given() -> Namespace:
    files = {"trajectory": "runs/md.h5", "experiment": "/elsewhere/measured.jdx", "labels": "labels.h5", "data": "fits.h5"}
    return Namespace(model=Path("models/ethanol"), **{name: Path(path) for name, path in files.items()})


def test_the_programs_take_the_commands(given: Namespace) -> None:
    minima = {"trans": Path("a/harmonic.h5"), "gauche": Path("b/harmonic.h5")}
    steps = plan(given, minima, Path("runs/spectra"))
    assert [str(s.done) for s in steps] == [
        f"runs/spectra/{name}"
        for name in ("trans/modes.json", "gauche/modes.json", "ir/assignment.json", "observables.json", "initial_guess.json")
    ]
    with initialize_config_dir(str(ROOT / "conf" / "harmonic"), version_base="1.3"):
        assert compose("harmonic", list(steps[1].command[2:])).harmonic == "b/harmonic.h5"
    with initialize_config_dir(str(ROOT / "conf" / "spectra"), version_base="1.3"):
        settings = compose("spectra", list(steps[2].command[1:]))
    assert {name: tuple(limits) for name, limits in settings.bands.items()} == BANDS
    assert dict(settings.minima) == {name: f"runs/spectra/{name}/harmonic.h5" for name in minima}
    assert [tuple(row) for row in settings.comparison.names] == [(name, *limits) for name, limits in BANDS.items()]
    for step in steps[3:]:  # and the benchmarks know their options
        text = (ROOT / step.command[0]).read_text()
        assert all(f'"{word}"' in text for word in step.command if word.startswith("--"))


def test_without_files_there_are_fewer_steps(given: Namespace) -> None:
    bare = Namespace(model=given.model, trajectory=None, experiment=None, labels=None, data=None)
    assert len(plan(bare, {"trans": Path("a/harmonic.h5")}, Path("out"))) == 1


def test_collects_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densnet.spectra_study.ROOT", tmp_path)
    out = Path("runs")
    for name in ("ir/ir", "ir/assignment", "guess"):
        (tmp_path / out / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / out / f"{name}.json").write_text(json.dumps({"of": name}))
    steps = [Step(out / "ir/assignment.json", ("spectra.py", "experiment=/far/away.jdx")), Step(out / "guess.json", ("b.py",))]
    parts = collect(out, steps, {"ir/assignment.json": 3.0}).parts
    assert [(p.name, p.seconds, p.result["of"]) for p in parts] == [
        ("ir/assignment", 3.0, "ir/assignment"), ("ir/ir", 3.0, "ir/ir"), ("guess", 0.0, "guess"),
    ]  # fmt: skip
    assert parts[0].command == "python spectra.py experiment=.../away.jdx"


@pytest.mark.parametrize("text", ["data/harmonic.h5", "trans=nowhere.h5", "=x.h5"])
def test_a_reference_has_a_name_and_exists(text: str) -> None:
    with pytest.raises(ConfigError, match="expected name=file"):
        named_path(text)
