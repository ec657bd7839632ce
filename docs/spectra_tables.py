"""Tables of spectra.md."""

from __future__ import annotations

from typing import Any

from shared_tables import ENERGY_ERRORS, energy_row, report, table


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
        ("`models/ethanol-first`", "ethanol_first", report("harmonic_ethanol_first")),
        ("`models/ethanol-fast`", "ethanol_fast", report("harmonic_ethanol_fast")),
        ("`models/ethanol`", "ethanol_density", part("trans/modes")),
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
