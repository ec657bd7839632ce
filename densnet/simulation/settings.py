"""The settings of a simulation: an edge, femtoseconds outside and atomic time inside."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from densnet.errors import SimulationError
from densnet.units import EV_PER_HARTREE, FS_PER_AU

ENSEMBLES = ("nve", "langevin", "nose_hoover")


@dataclass(frozen=True)
class SimulationSettings:
    """What to simulate.

    ensemble: "nve" (velocity Verlet), "langevin" (BAOAB) or "nose_hoover" (chains) in production; equilibration_steps before it
    are always Langevin. time_step_fs: femtoseconds; steps: of production; temperature: kelvin, of the thermostat and the
    starting velocities; friction_per_fs: of Langevin; thermostat_time_fs, chain_length: of Nose-Hoover chains;
    replicas: independent copies moved in one batch; record_every: steps between two recorded frames;
    flush_every: frames between two writes to disk, each followed by a restart point (fewer if they are large);
    record_charges: whether frames have the charges of the atoms too, from a potential that gives them; seed: of all random
    numbers.
    A replica that passes one of two bounds is frozen: max_energy_jump_ev, eV of potential energy from one step to the
    next; max_temperature, kelvin over all 3N degrees of freedom (None: 20 times temperature, at least 5000 K).
    Raises SimulationError for values that make no sense.
    """

    ensemble: str
    time_step_fs: float
    steps: int
    temperature: float
    friction_per_fs: float
    equilibration_steps: int = 0
    replicas: int = 1
    record_every: int = 1
    flush_every: int = 200
    seed: int = 1
    max_energy_jump_ev: float = 2.0
    max_temperature: float | None = None
    thermostat_time_fs: float = 50.0
    chain_length: int = 3
    record_charges: bool = False

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise SimulationError(f"ensemble is {self.ensemble!r}; expected one of {', '.join(ENSEMBLES)}")
        for name, least in (
            ("steps", 1),
            ("equilibration_steps", 0),
            ("replicas", 1),
            ("record_every", 1),
            ("flush_every", 1),
            ("seed", 0),
            ("chain_length", 2),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SimulationError(f"{name} is {value!r}; expected a whole number of at least {least}")
        if not isinstance(self.record_charges, bool):
            raise SimulationError(f"record_charges is {self.record_charges!r}; expected true or false")
        thermostat = self.ensemble == "langevin" or self.equilibration_steps > 0
        bound = "above 0 for langevin or equilibration_steps > 0" if thermostat else "of at least 0"
        self._check("time_step_fs", "femtoseconds above 0, usually 0.5", above=0.0)
        self._check("temperature", "kelvin above 0", above=0.0)
        self._check("friction_per_fs", f"a friction {bound}, usually 0.01", above=0.0, equal=not thermostat)
        self._check("thermostat_time_fs", "femtoseconds above 0, usually 50", above=0.0)
        if self.ensemble == "nose_hoover" and self.thermostat_time_fs < 10.0 * self.time_step_fs:
            raise SimulationError(
                f"thermostat_time_fs is {self.thermostat_time_fs!r}; expected at least ten time steps "
                f"({10.0 * self.time_step_fs:g} fs); lengthen it or shorten time_step_fs"
            )
        self._check("max_energy_jump_ev", "eV above 0", above=0.0)
        if self.max_temperature is not None:
            self._check("max_temperature", f"kelvin above temperature ({self.temperature}), or null", above=self.temperature)

    def _check(self, name: str, expected: str, above: float, equal: bool = False) -> None:
        value = getattr(self, name)
        number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
        if not number or value < above or (value == above and not equal):
            raise SimulationError(f"{name} is {value!r}; expected {expected}")

    @property
    def time_step(self) -> float:
        """Atomic time."""
        return self.time_step_fs / FS_PER_AU

    @property
    def friction(self) -> float:
        """Per atomic time."""
        return self.friction_per_fs * FS_PER_AU

    @property
    def thermostat_time(self) -> float:
        """Atomic time."""
        return self.thermostat_time_fs / FS_PER_AU

    @property
    def energy_jump_limit(self) -> float:
        """Hartree."""
        return self.max_energy_jump_ev / EV_PER_HARTREE

    @property
    def temperature_limit(self) -> float:
        """Kelvin."""
        return max(20.0 * self.temperature, 5000.0) if self.max_temperature is None else self.max_temperature
