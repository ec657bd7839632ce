"""Tables of energies.md."""

from __future__ import annotations

from shared_tables import ENERGY_ERRORS, energy_row, report, table

VARIANTS = {
    "both": "density and geometry, 3 layers, l = 2, 64 channels",
    "geometry": "geometry alone (no density)",
    "density": "density alone (no message passing)",
    "one-layer": "one layer of message passing",
    "l1": "l = 1",
    "l3": "l = 3",
    "channels-32": "32 channels",
}


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
    """NVE runs."""
    rows = []
    for name, title in (
        ("md_first_300K", "`models/ethanol-first`, 16, 300 K"),
        ("md_first_600K", "`models/ethanol-first`, 8, 600 K"),
        ("md_ethanol_300K", "`models/ethanol`, 8, 300 K"),
        ("md_fast_300K", "`models/ethanol-fast`, 16, 300 K"),
    ):
        s = report(name)
        rows.append(
            [title, f"{s['steps'] * 0.5e-3:g}", str(s["frozen_replicas"]), f"{s['drift_meV_per_atom_per_ps']:.4f}",
             f"{s['mean_temperature']:.0f}", f"{s['ms_per_step']:.0f}"]
        )  # fmt: skip
    return table(["model, replicas, start", "ps", "failed", "drift, meV/atom/ps", "mean temperature, K", "ms per step"], rows)


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


def training_speed() -> str:
    """Time of a training step, beside the peers'."""
    found = report("training")
    nequip = next(e for e in found["entries"] if e["name"] == "nequip")["ms"]["median"]
    rows = []
    for e in found["entries"]:
        ms = e["ms"]
        rows.append([e["name"], f"{ms['median']:.0f} ({ms['low']:.0f} to {ms['high']:.0f})", f"{ms['median'] / nequip:.2f}"])
    return table([f"a step of {found['molecules']} ethanols", "ms", "over NequIP"], rows)


def chains() -> str:
    s = report("dynamics")["scaling"]
    rows = [[f"{c['atoms']}", f"{c['ms']['median']:.0f}", f"{c['memory_mb']:.0f}"] for c in s["chains"]]
    text = f"Longer half: time ~ atoms^{s['time_over_atoms']:.2f}, memory ~ atoms^{s['memory_over_atoms']:.2f}."
    return table(["atoms", "ms", "MB"], rows) + "\n\n" + text
