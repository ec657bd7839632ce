"""Charts as Plotly's JSON (https://plotly.com/javascript/reference). Colours are names of the style sheet, var(--name), which

the page replaces by those of its light or dark look.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

INK, MUTED, GRID, PAPER = "var(--ink)", "var(--muted)", "var(--grid)", "var(--paper)"
MD, MODEL, REFERENCE = "var(--md)", "var(--model)", "var(--reference)"
LINES = (MD, MODEL, REFERENCE, "var(--fourth)", "var(--fifth)", "var(--sixth)")
TRANSPARENT = "40"  # of 255, in hexadecimal digits
DIGITS = 8  # those of the CSV files
LEAST_DENSITY = 1e-5  # e/bohr^3; a logarithmic plot would show mostly what lies below, which is next to nothing
MOST_DOTS = 3000  # of a scatter plot; more are slow to draw and hide each other


def numbers(values: np.ndarray) -> list[float | None]:
    """(K,) as JSON has it: None where a value is not finite."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]


def layout(**more: Any) -> dict[str, Any]:
    """What all charts have in common."""
    return {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 12, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        **more,
    }


def axis(title: str, **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "linecolor": MUTED,
        "tickcolor": MUTED,
        "ticks": "outside",
        "ticklen": 4,
        "tickfont": {"size": 12},
        "showline": True,
        "zeroline": False,
        "automargin": True,
        **more,
    }


def line(x: np.ndarray, y: np.ndarray, name: str, colour: str, hover: str, **more: Any) -> dict[str, Any]:
    """A curve; hover: Plotly's template, `%{x}` and `%{y}`."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": numbers(x),
        "y": numbers(y),
        "name": escape(name),
        "line": {"color": colour, "width": 1.6},
        "hovertemplate": hover,
        **more,
    }


def band(x: np.ndarray, lower: np.ndarray, upper: np.ndarray, name: str, colour: str) -> list[dict[str, Any]]:
    """The ground between two curves."""
    shown = np.isfinite(lower) & np.isfinite(upper)
    name, pen = escape(name), {"width": 0, "color": colour}
    edge = {"type": "scatter", "mode": "lines", "x": numbers(x[shown]), "line": pen, "hoverinfo": "skip"}
    return [
        {**edge, "y": numbers(lower[shown]), "showlegend": False, "legendgroup": name, "name": f"{name}, lower edge"},
        {
            **edge,
            "y": numbers(upper[shown]),
            "fill": "tonexty",
            "fillcolor": f"{colour}{TRANSPARENT}",
            "name": name,
            "legendgroup": name,
        },
    ]


def sticks(x: Sequence[float], height: Sequence[float], name: str, colour: str, symbol: str, sign: int) -> list[dict[str, Any]]:
    """Harmonic lines: km/mol, up or down (sign) on the second pair of axes."""
    place = [v for f in x for v in (f, f, None)]
    stem = [v for h in height for v in (0.0, sign * h, None)]
    common = {"type": "scatter", "xaxis": "x", "yaxis": "y2", "legendgroup": name}
    return [
        {**common, "mode": "lines", "x": place, "y": stem, "line": {"color": colour, "width": 2}, "hoverinfo": "skip",
         "showlegend": False, "name": f"{name}, stems"},
        {**common, "mode": "markers", "x": list(x), "y": [sign * h for h in height], "name": name, "customdata": list(height),
         "marker": {"color": colour, "symbol": symbol, "size": 7},
         "hovertemplate": f"{name}<br>%{{x:.1f}} cm⁻¹<br>%{{customdata:.3g}} km/mol<extra></extra>"},
    ]  # fmt: skip


def parity(
    reference: np.ndarray, model: np.ndarray, words: list[str], unit: str, logarithmic: bool
) -> tuple[dict[str, Any], int]:
    """Model against reference, above, and model less reference, below; for a quantity over many powers of ten on logarithmic axes

    with the difference in percent. words: (K,) of every pair, for the hover. Returns the figure and how many pairs it shows.
    """
    shown = np.arange(len(reference))
    if logarithmic:
        shown = np.flatnonzero((reference > LEAST_DENSITY) & (model > LEAST_DENSITY))
    shown = shown[:: -(-len(shown) // MOST_DOTS) or 1]
    x, y = reference[shown], model[shown]
    error = 100.0 * (y - x) / x if logarithmic else y - x
    error_unit = "%" if logarithmic else unit
    dots = {"color": MODEL, "size": 4.5 if len(shown) > 300 else 6, "opacity": 0.55, "line": {"width": 0}}
    text = [escape(words[i]) for i in shown.tolist()]
    common = {"type": "scatter", "mode": "markers", "marker": dots, "x": numbers(x), "text": text, "name": "model"}
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())]) if len(shown) else np.array([1.0, 2.0])
    hover = f"%{{text}}<br>DFT %{{x:.5g}} {unit}<br>model %{{y:.5g}} {unit}<extra></extra>"
    scale = {"type": "log", "exponentformat": "power", "dtick": 2} if logarithmic else {"nticks": 6}
    figure = {
        "data": [
            line(ends, ends, "equal", MUTED, "", hoverinfo="skip"),
            {**common, "y": numbers(y), "hovertemplate": hover},
            {**common, "y": numbers(error), "yaxis": "y2", "name": "error",
             "hovertemplate": f"%{{text}}<br>DFT %{{x:.5g}} {unit}<br>error %{{y:.3g}} {error_unit}<extra></extra>"},
        ],
        "layout": layout(
            margin={"l": 60, "r": 10, "t": 8, "b": 44},
            hovermode="closest",
            xaxis=axis(f"DFT / {unit}", anchor="y2", **scale),
            yaxis=axis(f"Model / {unit}", domain=[0.4, 1.0], **scale),
            yaxis2=axis(f"Error / {error_unit}", domain=[0.0, 0.3], zeroline=True, zerolinecolor=MUTED, nticks=5),
        ),
    }  # fmt: skip
    if logarithmic:
        figure["layout"]["yaxis2"]["range"] = [-10.0, 10.0]
    return figure, len(shown)


def dots(x: np.ndarray, y: np.ndarray, words: Sequence[str], x_title: str, y_title: str) -> dict[str, Any]:
    """A scatter plot, with words for the hover."""
    mark = {"color": MODEL, "size": 6, "opacity": 0.7}
    return {
        "data": [{
            "type": "scatter", "mode": "markers", "x": numbers(x), "y": numbers(y), "marker": mark, "name": "frames",
            "text": [escape(w) for w in words], "hovertemplate": "%{text}<br>%{x:.3g}; %{y:.4g}<extra></extra>",
        }],
        "layout": layout(hovermode="closest", xaxis=axis(escape(x_title)), yaxis=axis(escape(y_title), rangemode="tozero")),
    }  # fmt: skip
