"""Figures in the README are those of the files in docs/results, to the digits shown."""

from __future__ import annotations

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
