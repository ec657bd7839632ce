"""One place where the command-line programs turn a user's mistake into one line and exit code 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from densnet.errors import DensnetError


def run(main: Callable[[], object]) -> None:
    """Call a Hydra main. DensnetError and configuration errors end as `error: ...` on stderr with exit code 2."""
    # Hydra prints its own multi-line report and hides the exception unless this is set.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
    except DensnetError as error:
        _stop(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause is not None:  # an object that refused its settings speaks for itself
            if isinstance(cause, DensnetError):
                _stop(str(cause))
            cause = cause.__cause__
        _stop(_one_line(error))


def _one_line(error: BaseException) -> str:
    text = str(error)
    if key := re.search(r"Could not override '([^']+)'", text):
        return f"unknown setting {key[1]!r}; see the settings this program knows with --help or --cfg job"
    if group := re.search(r"Could not find '([^']+)'", text):
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        wanted = group[1].rsplit("/", 1)[-1]
        close = get_close_matches(wanted, options, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(options)}"
        return f"unknown configuration {group[1]!r}; {hint}"
    return " ".join(text.split())


def _stop(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
