"""The section of a training run: the metrics.csv of Lightning's CSV logger, and the settings beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from densnet.errors import DataError
from densnet.report import charts
from densnet.report.blocks import Block, Chart, Charts, Fold, Section, columns, heading
from densnet.report.parts import Part
from densnet.report.records import settings
from densnet.report.sources import Columns, columns_of, find

PLACES = ("metrics.csv", "csv/metrics.csv")
NOT_METRICS = ("epoch", "step")


def training_part(folder: Path, order: int = 1, of: int = 1) -> Part:
    """order, of: this is the first of so many training runs. Raises DataError if the folder has no metrics.csv of a run."""
    source = find(folder, *PLACES) if folder.is_dir() else None
    if source is None:
        raise DataError(
            f"{folder} has no metrics.csv or csv/metrics.csv; expected a run that logged to CSV; train with logger=csv"
        )
    log = columns_of(source)
    step = log.column("step")
    names = [name for name in log.names if name not in NOT_METRICS and np.isfinite(log.values[:, log.names.index(name)]).any()]
    if step is None or not names:
        raise DataError(
            f"{source.path} has no column step with a metric beside it; expected a log of training; train with logger=csv"
        )
    suffix = "" if of == 1 else f"-{order}"
    items = [_panel(log, step, title, group, f"training{suffix}-{i}") for i, (title, group) in enumerate(_groups(names))]
    table = [_extremes(log, step, name) for name in names if name.startswith("val/")]
    blocks: list[Block] = [Charts(tuple(items))]
    if table:
        head = ("Metric on the validation frames", "Lowest", "at step", "Last", "at step")
        blocks.append(columns("Validation", head, table))
    sources = [source]
    beside = find(folder, "csv/hparams.yaml", "hparams.yaml")
    if beside is not None and beside.yaml():
        blocks.append(Fold("Every setting of this training run", (settings(str(beside.path), beside.yaml()),)))
        sources.append(beside)
    elif (recipe := find(folder, "identity.json")) is not None:
        blocks.append(Fold("Settings of this training run", (settings(str(recipe.path), recipe.json()),)))
        sources.append(recipe)
    title = "Training" if of == 1 else f"Training, run {order} of {of}: {folder.name}"
    return Part(Section(f"training{suffix}", title, tuple(blocks)), (), tuple(sources))


def _groups(names: list[str]) -> list[tuple[str, list[str]]]:
    """Panels: the losses of training and validation, the terms of the loss, and each validation metric by itself."""
    loss = [name for name in names if name.endswith("/loss")]
    terms = [name for name in names if name.startswith("train/") and name not in loss]
    others = [name for name in names if name not in loss and name not in terms]
    groups = [("Loss", loss), ("Terms of the training loss", terms), *((heading(_stem(n)), [n]) for n in others)]
    return [(title, group) for title, group in groups if group]


def _stem(name: str) -> str:
    return name.removeprefix("val/")


def _panel(log: Columns, step: np.ndarray, title: str, names: list[str], chart: str) -> Chart:
    data, positive = [], True
    for name, colour in zip(names, charts.LINES * len(names)):
        values = log.values[:, log.names.index(name)]
        there = np.isfinite(values)
        positive = positive and bool((values[there] > 0.0).all())
        faint = {"opacity": 0.6} if name.startswith("train/") else {}
        wide = {"line": {"color": colour, "width": 1.0 if name.startswith("train/") else 2.0}}
        hover = f"step %{{x}}<br>%{{y:.4g}}<extra>{charts.escape(name)}</extra>"
        data.append({**charts.line(step[there], values[there], name, colour, hover), **wide, **faint})
    shape = charts.layout(
        margin={"l": 60, "r": 14, "t": 34 if len(names) > 1 else 10, "b": 44},
        hovermode="closest",
        showlegend=len(names) > 1,
        xaxis=charts.axis("Training step", nticks=6, rangemode="tozero"),
        yaxis=charts.axis(
            charts.escape(title),
            **({"type": "log", "exponentformat": "power", "dtick": 1} if positive and _decades(data) > 1.5 else {}),
        ),
    )
    alt = f"Line chart of {', '.join(names)} against the training step, from {step.min():.0f} to {step.max():.0f}"
    return Chart(chart, "", alt, {"data": data, "layout": shape}, 300, title=title.split(" / ")[0])


def _decades(data: list[dict]) -> float:
    values = np.array([v for trace in data for v in trace["y"] if v is not None and v > 0.0])
    return float(np.log10(values.max() / values.min())) if len(values) else 0.0


def _extremes(log: Columns, step: np.ndarray, name: str) -> tuple[object, ...]:
    values = log.values[:, log.names.index(name)]
    there = np.flatnonzero(np.isfinite(values))
    best, last = there[int(np.argmin(values[there]))], there[-1]
    return heading(_stem(name)), float(values[best]), int(step[best]), float(values[last]), int(step[last])
