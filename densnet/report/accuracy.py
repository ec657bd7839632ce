"""The section of an evaluation: the folder that train.py mode=evaluate wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from densnet.errors import DataError
from densnet.report import charts
from densnet.report.blocks import Block, Chart, Charts, Fold, Key, Picture, Section, Table, Words, cell, columns, heading, number
from densnet.report.parts import Part, data_uri
from densnet.report.records import record
from densnet.report.sources import Source, find, need, numbers, rows

REMEDY = "make one: train.py mode=evaluate init=MODEL dataset=NAME run_dir=FOLDER"
QUANTITIES = {  # of parity.csv: title, unit, whether it covers many powers of ten
    "density_e_bohr3": ("Density", "e bohr⁻³", True),
    "dipole_D": ("Dipole components", "D", False),
    "energy_meV": ("Energy", "meV", False),
    "force_eV_A": ("Force components", "eV Å⁻¹", False),
}
PARITY_HEAD = ("quantity", "frame", "reference", "model")
WORDS_OF_FRAMES = ("frame", "source", "quadrature")
FIRST = (  # figures to read first: name in evaluation.json, label, unit
    ("nmae_percent", "Density NMAE", "%"),
    ("energy_mae_meV", "Energy MAE", "meV"),
    ("force_mae_meV_per_A", "Force MAE", "meV Å⁻¹"),
    ("dipole_mae_mD", "Dipole, mean error vector", "mD"),
)
FIGURES = {
    "radial_error": (
        "Where the density error is.",
        "Figure of the density error by distance from the nearest nucleus and by element",
    ),
    "worst_frame": ("The density error of the worst frame.", "Map of the difference between predicted and reference density"),
}


def accuracy_part(folder: Path) -> Part:
    """Raises DataError if the folder has no evaluation.json or a file in it is not what an evaluation writes."""
    main = need(folder, "evaluation.json", REMEDY)
    result = main.json()
    if not isinstance(result, Mapping):
        raise DataError(f"{main.path} is no record; expected what an evaluation writes; {REMEDY}")
    frames, pairs = find(folder, "frames.csv"), find(folder, "parity.csv")
    blocks: list[Block] = []
    if pairs is not None:
        blocks += _parity(pairs)
    elif (drawn := find(folder, "parity.png")) is not None:
        blocks.append(
            Words("This evaluation is older than parity.csv, so its parity plots are a picture; evaluate again for live ones.")
        )
        blocks.append(Picture("Model against DFT.", "Parity plots of the evaluation, model against DFT", data_uri(drawn)))
    else:
        blocks.append(
            Words("No parity plots: the folder has neither parity.csv nor parity.png; train.py mode=evaluate writes both.")
        )
    blocks += record("Errors on the test frames", result)
    pictures = [(find(folder, f"{name}.png"), *words) for name, words in FIGURES.items()]
    shown = [Picture(caption, alt, data_uri(source)) for source, caption, alt in pictures if source is not None]
    blocks += shown
    if frames is not None:
        blocks += _frames(frames)
    keys = [
        Key(label, number(result[name], 3), unit, _note(name, result))
        for name, label, unit in FIRST
        if isinstance(result.get(name), (int, float))
    ]
    sources = [source for source in (main, pairs, frames) if source is not None]
    return Part(Section("accuracy", "Accuracy of the model", tuple(blocks)), tuple(keys), tuple(sources))


def _note(name: str, result: Mapping[str, Any]) -> str:
    frames = result.get("grid_frames" if name == "nmae_percent" else "frames")
    return "" if frames is None else f"{frames} test frame{'s' if frames != 1 else ''}"


def _parity(source: Source) -> list[Block]:
    head, body, _ = rows(source)
    if head != PARITY_HEAD:
        raise DataError(f"{source.path} has columns {', '.join(head)}; expected {', '.join(PARITY_HEAD)}; {REMEDY}")
    items, summary = [], []
    for name in dict.fromkeys(row[0] for row in body):
        title, unit, logarithmic = QUANTITIES.get(name, (heading(name), "", False))
        own = [(i, row) for i, row in enumerate(body, start=1) if row[0] == name]
        pairs = np.array([numbers(source, i, row[2:]) for i, row in own])
        if not np.isfinite(pairs).all():
            raise DataError(f"{source.path}: {name} has an empty cell; expected numbers; {REMEDY}")
        reference, model = pairs.T
        figure, shown = charts.parity(reference, model, [f"frame {row[1]}" for _, row in own], unit, logarithmic)
        error = np.abs(model - reference)
        some = "" if shown == len(own) else f" ({shown} of them drawn{', those above 10⁻⁵' if logarithmic else ''})"
        caption = f"{len(own)} pairs{some}, mean absolute error {error.mean():.3g} {unit}, largest {error.max():.3g} {unit}."
        alt = f"Scatter plot of the model's {title.lower()} against DFT, with the error below; {caption}"
        items.append(Chart(f"parity-{name}", caption, alt, figure, 430, title=title))
        slope = (
            float(np.corrcoef(reference, model)[0, 1]) if len(own) > 1 and np.ptp(reference) and np.ptp(model) else float("nan")
        )
        numeric = [
            number(float(v), 3) for v in (error.mean(), np.sqrt((error**2).mean()), error.max(), np.mean(model - reference))
        ]
        summary.append((f"{title} / {unit}", len(own), *numeric, number(slope, 6)))
    head = ("Quantity", "Pairs", "MAE", "RMSE", "Largest error", "Mean error", "Pearson correlation")
    return [Charts(tuple(items)), columns("Model against DFT", head, summary)]


def _frames(source: Source) -> list[Block]:
    head, body, _ = rows(source)
    table: list[list[object]] = []
    for i, row in enumerate(body, start=1):
        plain = [c if name in WORDS_OF_FRAMES else None for name, c in zip(head, row)]
        values = numbers(source, i, [c if name not in WORDS_OF_FRAMES else "" for name, c in zip(head, row)])
        table.append([p if p is not None else (cell("") if v != v else v) for p, v in zip(plain, values)])
    out: list[Block] = []
    if {"rmsd_A", "force_mae_meV_per_A", "source"} <= set(head):
        out += _distance_chart(source, head, body)
    whole: Table = columns("Errors of every test frame", [heading(name) for name in head], table)
    return [*out, Fold(f"Every test frame, {len(body)} rows", (whole,))]


def _distance_chart(source: Source, head: tuple[str, ...], body: list[list[str]]) -> list[Block]:
    at = [head.index(name) for name in ("rmsd_A", "force_mae_meV_per_A")]
    pairs = np.array([numbers(source, i, [row[k] for k in at]) for i, row in enumerate(body, start=1)])
    whole = np.isfinite(pairs).all(axis=1)
    if not whole.any():
        return []
    words = [row[head.index("source")] for row in body]
    x_title, y_title = "RMSD to the nearest training frame / Å", "Force MAE / meV Å⁻¹"
    distance, error = pairs[whole, 0], pairs[whole, 1]
    figure = charts.dots(distance, error, [words[i] for i in np.flatnonzero(whole)], x_title, y_title)
    alt = f"Scatter plot of the force error of {int(whole.sum())} test frames against their distance from the training frames"
    caption = "Force error of every test frame against its distance from what the model has seen."
    return [Chart("frames", caption, alt, figure, 340)]
