"""The study of the energies: its commands, its table, and (slow) the whole of it on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densnet.density_study import Run
from densnet.energy_study import VARIANTS, Settings, in_words, main, plan
from densnet.model.checkpoint import Architecture, DensitySettings, Provenance, build, save_model

SETTINGS = Settings(steps=20, tune_steps=5, sizes=(2, 3), overrides=("dataset.validation=2",))


def test_variants_differ_in_one_setting_each(tmp_path: Path) -> None:
    steps = plan(tmp_path / "fits.h5", tmp_path / "model", tmp_path, SETTINGS)
    commands = {s.done.parent.name: set(s.command) for s in steps}
    assert list(commands) == [*(n for n, _ in VARIANTS), "frames-2", "frames-3", "frozen-longer", "joint"]
    own = {name: {c for c in command if not c.startswith("run_dir=")} for name, command in commands.items()}
    for name, extra in (*VARIANTS[1:], ("frames-2", ("dataset.limit=2",))):
        assert own[name] - own["both"] == set(extra)
        assert own["both"] - own[name] == set()
    for name in ("frozen-longer", "joint"):
        assert {"trainer.max_steps=5", f"init={tmp_path / 'both' / 'model'}", "stage.optimizer.learning_rate=3e-4"} <= own[name]


def test_the_table_has_every_run() -> None:
    runs = [Run("both", 580, 20, 90.0, {"energy_mae_meV": 1.234, "force_mae_meV_per_A": 5.678})]
    assert in_words(runs).splitlines()[1].split() == ["both", "580", "20", "1.23", "5.68", "1.5"]


@pytest.mark.slow
def test_study_of_a_tiny_data_set(tmp_path: Path, tiny_fits: Path, basis, monkeypatch: pytest.MonkeyPatch) -> None:
    density = Architecture(DensitySettings(channels=4, lmax=(1, 2), hidden=8, radial=4, neighbours=2.0, flexible=1.3))
    save_model(tmp_path / "density", build(density, basis), density, Provenance())
    command = ["study", "--data", str(tiny_fits), "--init", str(tmp_path / "density"), "--out", str(tmp_path / "out")]
    command += ["--steps", "4", "--tune-steps", "2", "--sizes", "3", "--record", str(tmp_path / "record.json"), "--set"]
    tiny = ["dataset.validation=2", "model.energy.hidden=8", "trainer.enable_progress_bar=false"]
    monkeypatch.setattr("sys.argv", [*command, *tiny])
    main()
    runs = {r["name"]: r for r in json.loads((tmp_path / "record.json").read_text())["report"]["runs"]}
    assert set(runs) == {*(n for n, _ in VARIANTS), "frames-3", "frozen-longer", "joint"}
    assert runs["frames-3"]["train_frames"] == 3
    assert all(r["evaluation"]["force_mae_meV_per_A"] > 0 for r in runs.values())
    assert len(list((tmp_path / "out" / "frozen-density").iterdir())) == 2, "one for all frames, one for three"
