"""Long work as a list of commands a user would type: each is printed, run, and skipped when its result is there already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densnet.errors import DensnetError
from densnet.files import write_json

ROOT = Path(__file__).parents[1]


def from_root(path: Path) -> Path:
    """The path as the commands should name it: relative to the repository they run in, if it lies there.

    Commands end up in the recipe of a model; folders of the machine it was trained on do not belong there.
    """
    path = path.resolve()
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


@dataclass(frozen=True)
class Step:
    """done: the file that shows that the step is complete; command: what follows `python`. Paths are seen from ROOT."""

    done: Path
    command: Sequence[str]


def run_steps(steps: Sequence[Step], clock: Path) -> dict[str, float]:
    """Run what is not done yet. clock: JSON file with the seconds each step took, by the name of its result.

    Returns those seconds, earlier runs included (a step that was killed counts with all its attempts). Raises DensnetError
    if a command fails; what was finished stays.
    """

    def read() -> dict[str, float]:
        return json.loads((ROOT / clock).read_text()) if (ROOT / clock).exists() else {}

    for step in steps:
        done = ROOT / step.done
        if done.exists():
            print(f"done already: {step.done}", flush=True)
            continue
        print("\n$ python " + " ".join(step.command), flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "WANDB_SILENT": "true"}
        start = time.perf_counter()
        status = subprocess.run([sys.executable, *step.command], cwd=ROOT, env=environment, check=False).returncode
        name, spent = os.path.relpath(done, ROOT / clock.parent), read()  # another process may have added to it meanwhile
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
        write_json(ROOT / clock, spent)
        if status:
            raise DensnetError(
                f"the command above ended with status {status}; read its message, mend the cause and start again: what is "
                "finished is kept"
            )
    return read()
