"""The study of the density: its commands, its figure, and (slow) the whole of it on a tiny data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densnet.density_study import Settings, collect, learning_curve_figure, main, plan
from densnet.errors import DataError

SETTINGS = Settings(steps=20, curve_steps=10, tune_steps=5, sizes=(2, 3), overrides=("dataset.validation=2",))
RUNS = ["frames-2", "frames-3", "frames-all", "metric", "metric-longer", "real-space", "real-space-flexible", "real-space-dipole"]
RUNS += ["optimizer-adam", "optimizer-soap"]


def test_every_comparison_is_fair(tmp_path: Path) -> None:
    """Points of the learning curve differ in frames alone, fine-tunings have the same steps, start and learning rate."""
    steps = plan(tmp_path / "labels.h5", tmp_path, SETTINGS)
    assert [s.done.parent.name for s in steps[1:]] == RUNS
    commands = {s.done.parent.name: set(s.command) for s in steps[1:]}
    shared = set.intersection(*(commands[n] for n in RUNS[:3]))
    for name, own in (("frames-2", "dataset.limit=2"), ("frames-3", "dataset.limit=3"), ("frames-all", "")):
        different = {c for c in commands[name] - shared if not c.startswith(("run_dir=", "runs_dir="))}
        assert different == ({own} if own else set())
    for name in RUNS[4:7]:
        assert {"trainer.max_steps=5", f"init={tmp_path / 'metric' / 'model'}", "stage.optimizer.learning_rate=5e-4"} <= commands[
            name
        ]
    adam, soap = (
        {c for c in commands[name] if not c.startswith(("run_dir=", "runs_dir="))}
        for name in ("optimizer-adam", "optimizer-soap")
    )
    assert {c.split("=")[0] for c in adam ^ soap} == {"stage.optimizer.method", "stage.optimizer.learning_rate"}


def write_results(folder: Path) -> None:
    for k, name in enumerate(RUNS):
        (folder / name).mkdir()
        errors = {
            "nmae_percent": 0.5 - k / 20,
            "nmae_fit_percent": 0.4 - k / 20,
            "fit_floor_percent": 0.07,
            "dipole_mae_mD": 9.0 - k,
        }
        (folder / name / "evaluation.json").write_text(json.dumps({**errors, "train_frames": 2 + k}))


def test_collect_and_figure(tmp_path: Path) -> None:
    steps = plan(tmp_path / "labels.h5", tmp_path, SETTINGS)
    with pytest.raises(DataError, match=r"frames-2/evaluation.json cannot be used.*delete it and run again"):
        collect(tmp_path, steps, {})
    write_results(tmp_path)
    study = collect(tmp_path, steps, {"metric/evaluation.json": 12.0})
    assert [r.name for r in study.runs] == RUNS
    metric = next(r for r in study.runs if r.name == "metric")
    assert (metric.steps, metric.seconds, metric.train_frames) == (20, 12.0, 5)
    left, right = learning_curve_figure(study).axes
    assert left.lines[0].get_xdata() == pytest.approx([2, 3, 4])
    assert left.lines[0].get_ydata() == pytest.approx([0.5, 0.45, 0.4])
    assert right.lines[0].get_ydata() == pytest.approx([9, 8, 7])


@pytest.mark.slow
def test_study_of_a_tiny_data_set(tmp_path: Path, tiny_fits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = tiny_fits.with_name("labels.h5")
    command = [
        "study",
        "--labels",
        str(labels),
        "--out",
        str(tmp_path),
        "--steps",
        "6",
        "--curve-steps",
        "3",
        "--tune-steps",
        "3",
    ]
    tiny = ["dataset.validation=2", "model.density.channels=4", "trainer.enable_progress_bar=false"]
    monkeypatch.setattr("sys.argv", [*command, "--sizes", "2", "--record", str(tmp_path / "record.json"), "--set", *tiny])
    main()
    runs = {r["name"]: r for r in json.loads((tmp_path / "record.json").read_text())["report"]["runs"]}
    assert set(runs) == set(RUNS) - {"frames-3"}
    assert runs["frames-2"]["train_frames"] == 2
    assert runs["frames-all"]["train_frames"] == 5
    assert all(r["evaluation"]["nmae_percent"] > 0 and r["seconds"] > 0 for r in runs.values())
    flexible = json.loads((tmp_path / "real-space-flexible" / "model" / "model.json").read_text())
    assert flexible["architecture"]["density"]["flexible"] == 1.3
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
