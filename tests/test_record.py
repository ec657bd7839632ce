"""A record names the command that wrote it in words that are true on another machine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from densnet.record import portable, write_record

RESULTS = Path(__file__).parents[1] / "docs" / "results"


@dataclass(frozen=True)
class Figure:
    value: float


def test_paths_lose_the_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert portable(str(tmp_path / "runs" / "x.h5")) == "runs/x.h5"
    assert portable(f"dataset.path={tmp_path}/fits.h5") == "dataset.path=fits.h5"
    assert portable("--record=/elsewhere/deep/x.json") == "--record=.../x.json"
    assert portable("/elsewhere/bin/python") == ".../python"
    for word in ("runs/x.h5", "simulation.steps=10", "a=b=c", "--out", "[1,2]", ""):
        assert portable(word) == word


def test_a_record_says_what_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["program.py", "--out", str(tmp_path / "out folder"), "model=/far/away/ethanol"])
    write_record(tmp_path / "record.json", Figure(0.5))
    found = json.loads((tmp_path / "record.json").read_text())
    assert found["command"].endswith("--out 'out folder' model=.../ethanol")
    assert found["report"] == {"value": 0.5}
    assert {"date", "processor", "cores", "software"} < set(found)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.name)
def test_the_results_name_no_folder_of_a_machine(path: Path) -> None:
    command = json.loads(path.read_text())["command"]
    assert not re.search(r"(^|[ ='\"])/", command), command
