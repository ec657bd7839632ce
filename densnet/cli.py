"""One place where the command-line programs turn a user's mistake into one line and exit code 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from densnet.allocator import keep_freed_memory
from densnet.errors import DensnetError

CONFIGURATIONS = Path(__file__).parents[1] / "conf"


def job(function: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Decorator under @hydra.main: a mistake ends the program here, before Hydra writes its own lines about it."""

    @wraps(function)
    def stopping(cfg: DictConfig) -> None:
        with _mistakes_in_one_line():
            function(cfg)

    return stopping


def run(main: Callable[[], object]) -> None:
    """Call a program. DensnetError and configuration errors end as `error: ...` on stderr with exit code 2."""
    # Hydra prints its own multi-line report and hides the exception unless this is set.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    keep_freed_memory()
    with _mistakes_in_one_line():
        main()


@contextmanager
def _mistakes_in_one_line() -> Iterator[None]:
    try:
        yield
    except DensnetError as error:
        _stop(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause is not None:  # an object that refused its settings speaks for itself
            if isinstance(cause, DensnetError):
                _stop(str(cause))
            cause = cause.__cause__
        _stop(explain(error))


def explain(error: BaseException) -> str:
    """What is wrong with the settings and what to do, in one line."""
    text = str(error)
    if isinstance(error, MissingMandatoryValue):
        return f"no value for {error.full_key}; it has no default; add {error.full_key}=... to the command"
    if isinstance(error, OverrideParseException):
        return (
            f"cannot read {error.override!r}; expected key=value; quote lists and blanks for the shell: 'key=[1,2]' 'key=\"a b\"'"
        )
    if key := re.search(r"Could not override '([^']+)'", text):
        hint = _nearest(key[1], _known_beside(key[1], error.__cause__)) or "--help lists the settings this program knows"
        return f"unknown setting {key[1]!r}; {hint}"
    if group := re.search(r"Could not find '([^']+)'", text):
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        hint = _nearest(group[1].rsplit("/", 1)[-1], options) or f"expected one of {', '.join(options)}"
        return f"unknown configuration {group[1]!r}; {hint}"
    return " ".join(text.split())


def _known_beside(key: str, cause: BaseException | None) -> list[str]:
    """Full names of the settings that exist where `key` was looked for."""
    parent = cause.parent_node if isinstance(cause, OmegaConfBaseException) else None
    names = [str(name) for name in parent] if parent is not None else []
    prefix = key.rpartition(".")[0]
    if prefix:
        return [f"{prefix}.{name}" for name in names]
    # Groups that are off by default, such as experiment, have no entry in the settings.
    return [*names, *(path.name for path in CONFIGURATIONS.glob("*") if path.is_dir())]


def _nearest(wanted: str, known: Sequence[str]) -> str:
    close = get_close_matches(wanted, known, n=1)
    return f"did you mean {close[0]!r}?" if close and close[0] != wanted else ""


def _stop(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
