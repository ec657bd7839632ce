"""What the tables of all pages share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent


def report(name: str) -> Any:
    """The report in docs/results/NAME.json."""
    return json.loads((DOCS / "results" / f"{name}.json").read_text())["report"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


ERRORS = ["NMAE, %", "against the fit, %", "of the deformation, %", "dipole, mD", "second moment, mD angstrom"]


def row_of(run: dict[str, Any]) -> list[str]:
    e = run["evaluation"]
    figures = [f"{e[k]:.3f}" for k in ("nmae_percent", "nmae_fit_percent")]
    return [*figures, f"{e['deformation_error_percent']:.2f}", f"{e['dipole_mae_mD']:.2f}", f"{e['quadrupole_mae_mD_A']:.1f}"]


def energy_row(run: dict[str, Any]) -> list[str]:
    e = run["evaluation"]
    cold = [t for t in e["trajectories"] if t["trajectory"].startswith("test300")]
    force = sum(t["frames"] * t["force_mae_meV_per_A"] for t in cold) / sum(t["frames"] for t in cold)
    return [f"{e['energy_mae_meV']:.2f}", f"{e['force_mae_meV_per_A']:.2f}", f"{force:.2f}"]


ENERGY_ERRORS = ["energy, meV", "force, meV/angstrom", "force at 300 K"]
