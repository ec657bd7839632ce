"""Results that documentation may quote: what was run, where, when and with what, beside the figures."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from densnet.files import write_json

PACKAGES = ("densnet", "torch", "lightning", "e3nn", "pyscf", "tblite")


@dataclass(frozen=True)
class Record:
    """A report (a dataclass) with what it takes to trust it. command: as typed; processor: its model name."""

    command: str
    date: str
    processor: str
    cores: int
    software: dict[str, str]
    report: Any


def command_line() -> str:
    """The command that runs now, as typed after `python`, without the folders of this machine (see `portable`)."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"-m {spec.name.removesuffix('.__main__')}" if spec is not None else os.path.relpath(sys.argv[0])
    return f"python {program} {shlex.join(portable(word) for word in sys.argv[1:])}".strip()


def portable(word: str) -> str:
    """An argument with an absolute path, also after `key=`, relative to the working folder, or its name alone if elsewhere.

    What is recorded is read by people whose machines have other folders.
    """
    key, equals, value = word.rpartition("=")
    if not Path(value).is_absolute():
        return word
    path = Path(value)
    inside = path.is_relative_to(Path.cwd())
    return f"{key}{equals}{path.relative_to(Path.cwd()) if inside else Path('...') / path.name}"


def record(report: Any, command: str) -> Record:
    """The report with this machine beside it."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        processor = names[0] if names else processor
    software = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return Record(command, date.today().isoformat(), processor, os.cpu_count() or 1, software, report)


def write_record(path: Path, report: Any) -> None:
    """Write the record of the running command, whole or not at all."""
    write_json(path, asdict(record(report, command_line())))
