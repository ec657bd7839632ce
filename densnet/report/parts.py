"""A part of a page: its section, the figures to read first, and the files it came from."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from densnet.report.blocks import Key, Section
from densnet.report.sources import Source

MIME = {".png": "image/png", ".svg": "image/svg+xml", ".csv": "text/csv", ".json": "application/json", ".yaml": "text/plain"}


@dataclass(frozen=True)
class Part:
    section: Section
    keys: tuple[Key, ...] = ()
    sources: tuple[Source, ...] = ()


def data_uri(source: Source) -> str:
    """The bytes of a file in a page."""
    mime = MIME.get(source.path.suffix, "application/octet-stream")
    return f"data:{mime};base64,{base64.b64encode(source.content).decode()}"
