"""Errors a user can cause. Each message is one line: what was found, what was expected, what to do."""

from __future__ import annotations


class DensnetError(Exception):
    """A fault in the input, the files or the settings; the command-line programs print it as one line and exit 2."""


class StructureError(DensnetError):
    """A molecule that cannot be computed: overlapping atoms, impossible electron count, unreadable geometry."""


class BasisError(DensnetError):
    """A basis that does not fit: unknown element, wrong hash, bad exponents."""


class DataError(DensnetError):
    """A file on disk that is missing, truncated, foreign, or holds values that are not finite."""


class ModelError(DensnetError):
    """A model file that is missing or does not match the code, or a checkpoint that cannot be found."""


class ConfigError(DensnetError):
    """A setting that is unknown, or settings that contradict each other."""


class SimulationError(DensnetError):
    """A simulation that cannot start or has left the physical region."""


class SpectrumError(DensnetError):
    """A trajectory or signal from which the wanted spectrum cannot be made."""
