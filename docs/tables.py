"""Write the tables of PAGES from the files in docs/results: python docs/tables.py. The tests see that it was done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGES = (DOCS / "density.md", DOCS / "energies.md", DOCS / "spectra.md")


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
    """NVE runs."""
    rows = []
    for name, title in (
        ("md_ethanol_300K", "`models/ethanol`, 16, 300 K"),
        ("md_ethanol_600K", "`models/ethanol`, 8, 600 K"),
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


def part(name: str) -> Any:
    """What one file of the study of the spectra holds; the report, where it is a record itself."""
    result = next(p["result"] for p in report("spectra")["parts"] if p["name"] == name)
    return result.get("report", result)


def harmonic(conformer: str) -> str:
    """Mode by mode: DFT, and the model's deviation from it."""
    found = part(f"{conformer}/modes")
    model, dft = found["analyses"]
    rows = []
    for pair in sorted(found["comparison"]["pairs"], key=lambda p: p["reference_mode"]):
        mode = dft["modes"][pair["reference_mode"] - 1]
        atoms = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(mode["atoms"].items())[:3])
        rows.append(
            [
                f"{mode['frequency_cm1']:.1f}",
                f"{pair['deviation_cm1']:+.1f}",
                f"{mode['intensity_km_mol']:.1f}",
                f"{pair['deviation_km_mol']:+.1f}",
                atoms,
            ]
        )
    c = found["comparison"]
    in_order = [abs(a["frequency_cm1"] - b["frequency_cm1"]) for a, b in zip(model["modes"], dft["modes"])]
    words = (
        f"Mean deviation {c['mean_frequency_deviation_cm1']:.1f} cm^-1, largest {c['max_frequency_deviation_cm1']:.1f} "
        f"(paired in order of frequency {sum(in_order) / len(in_order):.1f} and {max(in_order):.1f}); "
        f"{c['outside_intensity_bar']} intensities are off by more than 3 km/mol and 10 %. Zero-point energy "
        f"{model['thermochemistry']['zero_point_kJ_mol']:.2f} kJ/mol (DFT {dft['thermochemistry']['zero_point_kJ_mol']:.2f})."
    )
    return table(["DFT, cm^-1", "model", "DFT, km/mol", "model", "who moves (kinetic energy)"], rows) + "\n\n" + words


def models() -> str:
    """Errors of the models of ethanol on all test frames, and at the trans minimum."""
    rows = []
    for title, frames, minimum in (
        ("`models/ethanol`", "ethanol_density", report("harmonic_ethanol")),
        ("`models/ethanol-fast`", "ethanol_fast", report("harmonic_ethanol_fast")),
        ("`models/ethanol-minima`", "ethanol_minima", part("trans/modes")),
    ):
        e, c = report(frames), minimum["comparison"]
        figures = [
            str(e["train_frames"]),
            f"{e['nmae_percent']:.3f} ({e['grid_frames']})",
            f"{e['dipole_mae_mD']:.2f}",
            *energy_row({"evaluation": e}),
        ]
        deviations = [f"{c[k]:.1f}" for k in ("mean_frequency_deviation_cm1", "max_frequency_deviation_cm1")]
        rows.append([title, *figures, *deviations, str(c["outside_intensity_bar"])])
    head = [
        "",
        "training frames",
        "NMAE, % (frames)",
        "dipole, mD",
        *ENERGY_ERRORS,
        "frequencies, mean",
        "largest, cm^-1",
        "intensities off",
    ]
    return table(head, rows)


def dipole_derivatives() -> str:
    """Dipoles of the test frames before and after the stage that learns dipole derivatives."""
    rows = []
    for title, name in (
        ("that of `models/ethanol-minima`, before", "ethanol_minima_first"),
        ("after", "ethanol_minima"),
        ("that of `models/ethanol-fast`, before", "ethanol_lean"),
        ("after", "ethanol_fast"),
    ):
        e = report(name)
        found = {t["trajectory"]: t for t in e["trajectories"]}
        cold = [t for n, t in found.items() if n.startswith("test300")]
        mean = sum(t["frames"] * t["dipole_mae_mD"] for t in cold) / sum(t["frames"] for t in cold)
        hot = found["test500"]["dipole_mae_mD"]
        values = (mean, hot, e["dipole_mae_mD"], e["dipole_component_mae_mD"])
        rows.append([title, *(f"{v:.2f}" for v in values), f"{e['nmae_percent']:.3f}"])
    head = ["density network", "dipole at 300 K, mD", "at 500 K", "all", "all, by component", "NMAE, %"]
    return table(head, rows)


def measured_bands() -> str:
    rows = [
        [
            b["name"],
            f"{b['low_cm1']:g}-{b['high_cm1']:g}",
            f"{b['measured']:.3f}",
            f"{b['computed']:.3f} +- {b['computed_error']:.3f}",
            f"{b['measured_km_mol']:.0f}",
            f"{b['computed_km_mol']:.0f} +- {b['computed_km_mol_error']:.0f}",
        ]
        for b in part("ir/comparison")["bands"]
    ]
    head = ["band", "cm^-1", "share measured", "share computed", "km/mol measured", "km/mol computed"]
    return table(head, rows)


def measured_peaks() -> str:
    found = part("ir/comparison")
    harmonics = {
        name: {p["measured_cm1"]: p["deviation_cm1"] for p in found[name]["pairs"]} for name in ("harmonic_dft", "harmonic_model")
    }
    rows = [
        [
            f"{p['measured_cm1']:.0f}",
            f"{p['computed_cm1']:.0f}",
            f"{p['deviation_cm1']:+.0f}",
            *(
                f"{deviations[p['measured_cm1']]:+.0f}" if p["measured_cm1"] in deviations else ""
                for deviations in harmonics.values()
            ),
        ]
        for p in found["md"]["pairs"]
    ]
    return table(["measured, cm^-1", "MD", "MD - measured", "DFT harmonic - measured", "model harmonic - measured"], rows)


def similarity() -> str:
    found = part("ir/comparison")["similarity"]
    rows = [
        [f"x {f['scale_factor']:.4f}", *(f"{f[k]:.3f}" for k in ("pearson", "cosine", "sis")), f"{f['wasserstein_cm1']:.0f}"]
        for f in (found["unscaled"], found["scaled"])
    ]
    return table(["wavenumbers", "Pearson", "cosine", "SIS", "Wasserstein, cm^-1"], rows)


def assignment() -> str:
    rows = []
    for band in part("ir/assignment")["bands"]:
        modes = ", ".join(f"{m['reference']} {m['number']} {100 * m['share']:.0f} %" for m in band["parts"][:3])
        o = band["origin"] or {}
        split = " / ".join(f"{o[k]:.2f}" for k in ("moving", "flowing", "deforming")) if o else ""
        rows.append(
            [
                f"{band['peak_cm1']:.0f}",
                f"{band['km_mol']:.1f} +- {band['error_km_mol']:.1f}",
                band["label"],
                modes,
                f"{100 * band['rest']:.0f} %",
                split,
            ]
        )
    return table(["cm^-1", "km/mol", "what moves", "modes", "no mode", "charge moving / flowing / atoms deforming"], rows)


def observables() -> str:
    o = part("observables")
    rows = [
        [
            "potential on 1.4 times the van der Waals surface, mHa/e",
            *(f"{o[k]['largest']:.3f} / {o[k]['rms']:.3f}" for k in ("potential_fit", "potential_model")),
        ],
        ["Hirshfeld charges, e", *(f"{o[k]['largest']:.1e} / {o[k]['rms']:.1e}" for k in ("hirshfeld_fit", "hirshfeld_model"))],
    ]
    text = table([f"largest / rms over {o['frames']} frames", "the fit", "the model"], rows)
    cubes = [[f"{c['spacing']:g}", f"{c['margin']:g}", str(c["points"]), f"{c['difference_mD']:.2f}"] for c in o["cube"]]
    return text + "\n\n" + table(["cube spacing, bohr", "margin, bohr", "points", "dipole of the cube, error in mD"], cubes)


def first_guess() -> str:
    g = part("initial_guess")
    rows = [
        [
            c["guess"],
            f"{c['iterations']:.2f} ({c['iterations_least']} to {c['iterations_most']})",
            f"{c['guess_s']:.2f}",
            f"{c['scf_s']:.2f}",
        ]
        for c in g["costs"]
    ]
    words = f"{g['frames']} test frames; {g['iterations_saved_percent']:.0f} % of the iterations saved."
    return table(["start", "SCF iterations", "making it, s", "SCF, s"], rows) + "\n\n" + words


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
    "training-speed": training_speed,
    "chains": chains,
    "harmonic-trans": lambda: harmonic("trans"),
    "harmonic-gauche": lambda: harmonic("gauche"),
    "models": models,
    "dipole-derivatives": dipole_derivatives,
    "measured-bands": measured_bands,
    "measured-peaks": measured_peaks,
    "similarity": similarity,
    "assignment": assignment,
    "observables": observables,
    "first-guess": first_guess,
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
