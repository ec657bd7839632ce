"""Write the tables of PAGES from the files in docs/results: python docs/tables.py. The tests see that it was done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = (DOCS / "density.md", DOCS / "energies.md")


def report(name: str) -> Any:
    """The report in docs/results/NAME.json."""
    return json.loads((DOCS / "results" / f"{name}.json").read_text())["report"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def basis_floors() -> str:
    """Fit floors of the three bases: ethanol, design molecules, molecules the design never saw."""
    rows = []
    for basis in report("basis")["bases"]:
        floors = {side: [f["nmae_percent"] for f in basis[side]] for side in ("used", "held_out")}
        mean = {side: sum(values) / len(values) for side, values in floors.items()}
        ethanol = next(f for f in basis["used"] if f["molecule"] == "C2H6O")
        rows.append(
            [
                f"`{basis['name']}`",
                str(ethanol["functions"]),
                f"{ethanol['nmae_percent']:.3f}",
                *(f"{mean[side]:.3f} ({max(floors[side]):.3f})" for side in ("used", "held_out")),
                f"{max(f['condition'] for side in floors for f in basis[side]):.0e}",
                basis["shells"].replace("; ", "<br>"),
            ]
        )
    head = ["basis", "functions of ethanol", "floor of ethanol, %", "design molecules, %", "others, %", "condition", "shells"]
    return table(head, rows)


def row_of(run: dict[str, Any]) -> list[str]:
    e = run["evaluation"]
    figures = [f"{e[k]:.3f}" for k in ("nmae_percent", "nmae_fit_percent")]
    return [*figures, f"{e['deformation_error_percent']:.2f}", f"{e['dipole_mae_mD']:.2f}", f"{e['quadrupole_mae_mD_A']:.1f}"]


ERRORS = ["NMAE, %", "against the fit, %", "of the deformation, %", "dipole, mD", "second moment, mD angstrom"]


def learning_curve() -> str:
    runs = [r for r in report("density")["runs"] if r["name"].startswith("frames-")]
    runs.sort(key=lambda r: r["train_frames"])
    rows = [[str(r["train_frames"]), *row_of(r), f"{r['seconds'] / 3600:.2f}"] for r in runs]
    return table(["training frames", *ERRORS, "hours"], rows)


NAMES = {
    "metric": "metric alone",
    "metric-longer": "metric, trained on",
    "real-space": "real space, fixed exponents",
    "real-space-flexible": "real space, flexible exponents",
    "real-space-dipole": "real space, then on with a heavy dipole term",
}


def fine_tuning() -> str:
    runs = {r["name"]: r for r in report("density")["runs"]}
    rows = [[title, str(runs[n]["steps"]), *row_of(runs[n]), f"{runs[n]['seconds'] / 3600:.2f}"] for n, title in NAMES.items()]
    return table(["training", "steps", *ERRORS, "hours"], rows)


def shipped() -> str:
    """The evaluation of models/ethanol."""
    e = report("ethanol_density")
    rows = [
        ["NMAE against the SCF density, %", f"{e['nmae_percent']:.3f}"],
        ["worst frame, %", f"{e['nmae_worst_percent']:.3f}"],
        ["floor of the fit, %", f"{e['fit_floor_percent']:.3f}"],
        ["NMAE against the fit, %", f"{e['nmae_fit_percent']:.3f}"],
        ["share of the deformation, %", f"{e['deformation_error_percent']:.2f}"],
        ["dipole, mD", f"{e['dipole_mae_mD']:.2f}"],
        ["second moment, mD angstrom", f"{e['quadrupole_mae_mD_A']:.1f}"],
        ["electrons, largest error", f"{e['electrons_max_error']:.0e}"],
        ["test frames (with a grid)", f"{e['frames']} ({e['grid_frames']})"],
        ["RMSD to the nearest training frame, least / median, angstrom", f"{e['rmsd_least_A']:.3f} / {e['rmsd_median_A']:.3f}"],
    ]
    rows += [[f"{x['element']} atoms, % of their electrons", f"{x['error_percent']:.3f}"] for x in e["elements"]]
    return table(["", "models/ethanol"], rows)


def benchmark() -> str:
    b = report("density_benchmark")
    rows = [
        [f"density of {p['molecules']} ethanol", f"{p['ms']:.1f} ms", f"{p['coefficients_per_s']:.3g} coefficients/s",
         f"one SCF takes {p['kohn_sham_over_network']:.0f} times as long as a molecule"]
        for p in b["prediction"]
    ]  # fmt: skip
    for name, title in (("metric", "metric J + mu S of ethanol"), ("density", "density on 50000 points")):
        c = b[name]
        rows.append([title, f"{c['densnet_ms']:.1f} ms", f"PySCF {c['pyscf_ms']:.1f} ms", f"PySCF / densnet {c['ratio']:.2f}"])
    c = b["losses"]
    for name, title in (("metric", "metric loss"), ("real_space", "real-space loss, 1000 points")):
        ratio = f"{c[f'{name}_over_network']:.2f} of the network"
        rows.append([f"{title}, {c['molecules']} molecules, with gradient", f"{c[f'{name}_ms']:.1f} ms", "", ratio])
    return table(["work", "time", "", "ratio"], rows)


VARIANTS = {
    "both": "density and geometry, 3 layers, l = 2, 64 channels",
    "geometry": "geometry alone (no density)",
    "density": "density alone (no message passing)",
    "one-layer": "one layer of message passing",
    "l1": "l = 1",
    "l3": "l = 3",
    "channels-32": "32 channels",
}


def energy_row(run: dict[str, Any]) -> list[str]:
    e = run["evaluation"]
    cold = [t for t in e["trajectories"] if t["trajectory"].startswith("test300")]
    force = sum(t["frames"] * t["force_mae_meV_per_A"] for t in cold) / sum(t["frames"] for t in cold)
    return [f"{e['energy_mae_meV']:.2f}", f"{e['force_mae_meV_per_A']:.2f}", f"{force:.2f}"]


ENERGY_ERRORS = ["energy, meV", "force, meV/angstrom", "force at 300 K"]


def energy_variants() -> str:
    runs = {r["name"]: r for r in report("energy")["runs"]}
    rows = [[title, *energy_row(runs[name])] for name, title in VARIANTS.items()]
    return table(["energy network", *ENERGY_ERRORS], rows)


def energy_curve() -> str:
    runs = [r for r in report("energy")["runs"] if r["name"].startswith("frames-") or r["name"] == "both"]
    runs.sort(key=lambda r: r["train_frames"])
    return table(["training frames", *ENERGY_ERRORS], [[str(r["train_frames"]), *energy_row(r)] for r in runs])


def energy_tuning() -> str:
    runs = {r["name"]: r for r in report("energy")["runs"]}
    titles = {"frozen-longer": "density network frozen", "joint": "both networks"}
    rows = [
        [title, str(runs[n]["steps"]), *energy_row(runs[n]), f"{runs[n]['evaluation']['dipole_mae_mD']:.2f}"]
        for n, title in titles.items()
    ]
    return table(["trained on", "steps", *ENERGY_ERRORS, "dipole, mD"], rows)


def energy_shipped() -> str:
    """Energies and forces of models/ethanol by trajectory."""
    e = report("ethanol_density")
    rows = [
        [
            t["trajectory"],
            str(t["frames"]),
            f"{t['energy_mae_meV']:.2f}",
            f"{t['force_mae_meV_per_A']:.2f}",
            f"{t['dipole_mae_mD']:.2f}",
        ]
        for t in e["trajectories"]
    ]
    rows.append(
        ["all", str(e["frames"]), f"{e['energy_mae_meV']:.2f}", f"{e['force_mae_meV_per_A']:.2f}", f"{e['dipole_mae_mD']:.2f}"]
    )
    return table(["test trajectory", "frames", "energy, meV", "force, meV/angstrom", "dipole, mD"], rows)


def dynamics() -> str:
    """NVE runs of models/ethanol."""
    rows = []
    for name, title in (("md_ethanol_300K", "16, 300 K, compiled"), ("md_ethanol_600K", "8, 600 K")):
        s = report(name)
        rows.append(
            [title, f"{s['steps'] * 0.5e-3:g}", str(s["frozen_replicas"]), f"{s['drift_meV_per_atom_per_ps']:.4f}",
             f"{s['mean_temperature']:.0f}", f"{s['ms_per_step']:.0f}"]
        )  # fmt: skip
    return table(["replicas, start", "ps", "failed", "drift, meV/atom/ps", "mean temperature, K", "ms per step"], rows)


def speed() -> str:
    """Time of a call for energy, forces and dipole, beside the peers' energy and forces."""
    rows = []
    for system in report("dynamics")["systems"]:
        nequip = next((e for e in system["entries"] if e["name"] == "nequip eager"), None)
        for e in system["entries"]:
            ratio = "" if nequip is None else f"{e['ms']['median'] / nequip['ms']['median']:.2f}"
            ms = e["ms"]
            rows.append([system["name"], e["name"], f"{ms['median']:.1f} ({ms['low']:.1f} to {ms['high']:.1f})", ratio])
    return table(["molecules", "who", "ms", "over NequIP eager"], rows)


def chains() -> str:
    s = report("dynamics")["scaling"]
    rows = [[f"{c['atoms']}", f"{c['ms']['median']:.0f}", f"{c['memory_mb']:.0f}"] for c in s["chains"]]
    text = f"Longer half: time ~ atoms^{s['time_over_atoms']:.2f}, memory ~ atoms^{s['memory_over_atoms']:.2f}."
    return table(["atoms", "ms", "MB"], rows) + "\n\n" + text


BLOCKS: dict[str, Callable[[], str]] = {
    "basis": basis_floors,
    "learning-curve": learning_curve,
    "fine-tuning": fine_tuning,
    "shipped": shipped,
    "benchmark": benchmark,
    "energy-shipped": energy_shipped,
    "energy-variants": energy_variants,
    "energy-curve": energy_curve,
    "energy-tuning": energy_tuning,
    "dynamics": dynamics,
    "speed": speed,
    "chains": chains,
}


def filled(text: str) -> str:
    """The page with every block between its marks made anew. Raises KeyError for a block nobody makes."""
    return re.sub(
        r"<!-- begin:(\S+) -->.*?<!-- end:\1 -->",
        lambda m: f"<!-- begin:{m[1]} -->\n\n{BLOCKS[m[1]]()}\n\n<!-- end:{m[1]} -->",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
