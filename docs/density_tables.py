"""Tables of density.md."""

from __future__ import annotations

from shared_tables import ERRORS, report, row_of, table


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


def optimizers() -> str:
    """The same training with either optimiser."""
    runs = {r["name"]: r for r in report("density")["runs"]}
    rows = [
        [title, str(runs[n]["steps"]), *row_of(runs[n])] for n, title in (("optimizer-adam", "Adam"), ("optimizer-soap", "SOAP"))
    ]
    return table(["optimiser", "steps", *ERRORS], rows)


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


def dipole_derivatives() -> str:
    """Dipoles of the test frames before and after the stage that learns dipole derivatives."""
    rows = []
    for title, name in (
        ("that of `models/ethanol`, before", "ethanol_before_derivatives"),
        ("after the derivatives of 404 frames", "ethanol_404_derivatives"),
        ("after those of 1300 frames, with SOAP", "ethanol_density"),
        ("that of `models/ethanol-fast`, before", "ethanol_lean"),
        ("after the derivatives of 360 frames", "ethanol_fast"),
    ):
        e = report(name)
        found = {t["trajectory"]: t for t in e["trajectories"]}
        cold = [t for n, t in found.items() if n.startswith("test300")]
        mean = sum(t["frames"] * t["dipole_mae_mD"] for t in cold) / sum(t["frames"] for t in cold)
        hot = found["test500"]["dipole_mae_mD"]
        values = (mean, hot, e["dipole_mae_mD"], e["dipole_component_mae_mD"])
        rows.append([title, *(f"{v:.2f}" for v in values), f"{e['nmae_percent']:.3f} ({e['grid_frames']})"])
    head = ["density network", "dipole at 300 K, mD", "at 500 K", "all", "all, by component", "NMAE, % (frames)"]
    return table(head, rows)
