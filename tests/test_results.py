"""Figures in the README are those of the files in docs/results, to the digits shown."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = {name: ROOT / f"docs/results/{name}.json" for name in ("water", "ethanol")}


def figures(report: dict) -> dict[str, float]:
    """Rows of the README's table."""
    ir = report["ir"]
    shift = [abs(a - b) for a, b in zip(ir["model_harmonic_cm1"], ir["dft_harmonic_cm1"])]
    return {
        "Density, NMAE against the SCF density, %": report["density"]["nmae_percent"],
        "Floor of the fit, %": report["density"]["fit_floor_percent"],
        "Dipole, mD": report["density"]["dipole_mae_mD"],
        "Energy, meV": report["energy"]["mae_meV"],
        "Force components, meV/angstrom": report["energy"]["force_mae_meV_per_A"],
        "Harmonic frequencies against DFT in order, largest difference, cm^-1": max(shift),
        "Drift at constant energy, meV/atom/ps": abs(report["md"]["drift_meV_per_atom_per_ps"]),
        "One step of all replicas, ms": report["md"]["ms_per_step"],
    }


@pytest.mark.parametrize(("column", "name"), enumerate(RESULTS))
def test_readme_quotes_the_result_files(column: int, name: str) -> None:
    block = re.search(r"<!-- results:begin -->(.*)<!-- results:end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in block[1].splitlines() if line.startswith("|")
    ]
    quoted = {row[0]: row[1 + column] for row in rows[2:]}
    expected = figures(json.loads(RESULTS[name].read_text())["report"])
    assert set(quoted) == set(expected)
    for key, text in quoted.items():
        digits = len(text.partition(".")[2])
        assert float(text) == pytest.approx(expected[key], abs=0.51 * 10**-digits), key


def test_pages_show_the_result_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of the pages are what docs/tables.py makes of docs/results."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    tables = importlib.import_module("tables")
    pages = [page.read_text() for page in tables.PAGES]
    for page in pages:
        assert tables.filled(page) == page, "run python docs/tables.py"
        for block in re.finditer(r"<!-- begin:(\S+) -->(.*?)<!-- end:\1 -->", page, re.DOTALL):
            body = block[2].index("| --- |")
            digit = re.search(r"\d", block[2][body:])
            assert digit is not None
            at = block.start(2) + body + digit.start()
            damaged = page[:at] + str((int(page[at]) + 1) % 10) + page[at + 1 :]
            assert tables.filled(damaged) == page
    assert sum(page.count("<!-- begin:") for page in pages) == len(tables.BLOCKS)


def test_bars_of_the_shipped_density() -> None:
    """What the docs promise of models/ethanol and of the bases, read from the result files."""
    shipped = json.loads((ROOT / "docs/results/ethanol_density.json").read_text())["report"]
    assert shipped["nmae_percent"] <= 0.18
    assert shipped["dipole_mae_mD"] <= 2.0
    assert shipped["electrons_max_error"] <= 1e-6
    assert shipped["frames"] == shipped["grid_frames"] == 120
    for basis in json.loads((ROOT / "docs/results/basis.json").read_text())["report"]["bases"]:
        ethanol = next(f for f in basis["used"] if f["molecule"] == "C2H6O")
        size, floor = {"small": (380, 0.40), "medium": (680, 0.14), "large": (870, 0.10)}[basis["name"]]
        assert ethanol["functions"] <= size
        assert ethanol["nmae_percent"] <= floor
        mean = {side: sum(f["nmae_percent"] for f in basis[side]) / len(basis[side]) for side in ("used", "held_out")}
        assert mean["held_out"] <= 1.3 * mean["used"]
