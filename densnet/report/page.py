"""The page: one HTML file that loads nothing. Scripts other than its own two do not run in it (Content-Security-Policy)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from itertools import chain

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from densnet import __version__
from densnet.errors import DataError
from densnet.report.blocks import Block, Chart, Charts, Download, Downloads, Fold, Section
from densnet.report.parts import Part, data_uri
from densnet.report.sources import Source

CARRIED = (".csv", ".json", ".yaml")  # inputs that can be saved from the page


@dataclass(frozen=True)
class Missing:
    """A section that the page does not have: what it would show, and the setting that adds it."""

    what: str
    setting: str


def render(
    parts: Sequence[Part], missing: Sequence[Missing], title: str, command: str, made: datetime, carry: bool = True
) -> str:
    """The page as HTML. All text from files is escaped. carry: put the inputs into it, to be saved from the page.

    Raises DataError if there is nothing to show.
    """
    if not parts:
        raise DataError(
            "nothing to report; expected at least one run; give spectrum=FOLDER, evaluation=FOLDER or training=FOLDER"
        )
    sections = [*(part.section for part in parts), _files(parts, carry)]
    figures = {chart.name: chart.figure for section in sections for chart in _charts(section.blocks)}
    scripts = [Markup(get_plotlyjs()), Markup(_asset("page.js"))]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.jinja")).render(
        title=title,
        sections=sections,
        keys=list(chain.from_iterable(part.keys for part in parts)),
        missing=missing,
        command=command,
        made=made,
        version=__version__,
        style=Markup(_asset("page.css")),
        scripts=scripts,
        hashes=Markup(" ".join(_hash(script) for script in scripts)),
        figures=Markup(script_json(figures)),
    )


def script_json(content: object) -> str:
    """JSON that ends no <script> and opens no comment, whatever stands in it."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return files("densnet.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What Content-Security-Policy calls the source of an inline script (W3C, CSP 3, 6.7.3.3)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _charts(blocks: Sequence[Block]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Charts):
            yield from block.items
        elif isinstance(block, Fold):
            yield from _charts(block.blocks)


def _files(parts: Sequence[Part], carry: bool) -> Section:
    sources = {str(source.path): source for part in parts for source in part.sources}
    return Section("files", "Files", (Downloads(tuple(_download(source, carry) for source in sources.values())),))


def _download(source: Source, carry: bool) -> Download:
    kilobytes = len(source.content) / 1000
    size = f"{kilobytes:.1f} kB" if kilobytes < 1000 else f"{kilobytes / 1000:.1f} MB"
    uri = data_uri(source) if carry and source.path.suffix in CARRIED else None
    return Download(source.path.name, str(source.path), size, source.sha256, uri)
