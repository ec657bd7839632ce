"""Files that appear under their name only when they are complete: a killed program leaves the old file or none, never half."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, to be written to; when the block ends it takes the name `path`, on an error it goes.

    Folders that are missing are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name, not the process id: processes of several machines may share the folder.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        # Some libraries make files that only their owner can read; this one is to be as any other of the user.
        os.umask(mask := os.umask(0))
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Make or replace `path`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Make or replace `path` (UTF-8)."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, content: Any) -> None:
    """Make or replace `path` with this content."""
    write_text(path, json.dumps(content, indent=1) + "\n")
