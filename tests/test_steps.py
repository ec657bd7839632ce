"""Long work as commands: what is done is skipped, what fails stops with one line, and the seconds add up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from densnet.errors import DensnetError
from densnet.steps import ROOT, Step, from_root, run_steps


def touching(path: Path, text: str = "made") -> Step:
    return Step(path, ("-c", f"open({str(path)!r}, 'a').write({text!r})"))


def test_runs_in_order_and_skips_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b").write_text("before")
    steps = [
        touching(tmp_path / "a"),
        touching(tmp_path / "b"),
        Step(tmp_path / "c", ("-c", f"open({str(tmp_path / 'c')!r}, 'w')")),
    ]
    spent = run_steps(steps, tmp_path / "seconds.json")
    assert (tmp_path / "a").read_text() == "made"
    assert (tmp_path / "b").read_text() == "before"
    assert set(spent) == {"a", "c"}
    assert all(0 < s < 60 for s in spent.values())
    assert f"done already: {tmp_path / 'b'}" in capsys.readouterr().out
    assert run_steps(steps, tmp_path / "seconds.json") == spent, "nothing left to do"


def test_failure_keeps_what_was_finished(tmp_path: Path) -> None:
    steps = [touching(tmp_path / "a"), Step(tmp_path / "b", ("-c", "raise SystemExit(3)")), touching(tmp_path / "c")]
    with pytest.raises(DensnetError, match=r"status 3.*what is finished is kept"):
        run_steps(steps, tmp_path / "seconds.json")
    assert (tmp_path / "a").exists()
    assert not (tmp_path / "c").exists()
    first = json.loads((tmp_path / "seconds.json").read_text())
    assert set(first) == {"a", "b"}, "a failed attempt has cost its time too"
    spent = run_steps([*steps[:1], touching(tmp_path / "b"), steps[2]], tmp_path / "seconds.json")
    assert spent["a"] == first["a"]
    assert spent["b"] > first["b"]


def test_paths_below_the_repository_are_named_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end up in a model's recipe: no folder of this machine, wherever the program was started."""
    assert from_root(ROOT / "runs" / "x") == Path("runs/x")
    assert from_root(tmp_path) == tmp_path.resolve()
    monkeypatch.chdir(tmp_path)
    assert from_root(Path("here")) == (tmp_path / "here").resolve()
    assert run_steps([Step(Path("README.md"), ("-c", "raise SystemExit(1)"))], tmp_path / "s.json") == {}, "done, seen from ROOT"
