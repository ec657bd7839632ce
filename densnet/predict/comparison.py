"""A prediction beside the real calculation: Kohn-Sham with PySCF on the same frame."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from densnet.basis.shells import Basis
from densnet.data.fits import DensityGrid
from densnet.data.labels import Label, Level, unpack
from densnet.errors import ConfigError, DensnetError
from densnet.observables.partition import free_atom_densities, hirshfeld_weights
from densnet.observables.real_space import density_on_points
from densnet.predict.frames import Predicted, nuclear_centre, traceless
from densnet.reference.fitting import density_on_grid
from densnet.reference.kohn_sham import PROGRAM, NoLabel, ScfSettings, compute_label
from densnet.structures import Molecule
from densnet.units import (
    ANGSTROM_PER_BOHR,
    DEBYE_PER_AU,
    EV_PER_ANGSTROM_PER_AU,
    EV_PER_HARTREE,
    MEV_PER_ANGSTROM_PER_AU,
    MEV_PER_HARTREE,
    MILLIDEBYE_PER_AU,
)


@dataclass(frozen=True)
class Reference:
    """What the Kohn-Sham calculation gives, atomic units. dipole about the centre of nuclear charge for ions, second_moment

    always; hirshfeld: (N,) e with the free atoms of the model's basis.
    """

    energy: float
    force: np.ndarray
    dipole: np.ndarray
    second_moment: np.ndarray
    hirshfeld: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Model minus reference. None where the model has no such quantity. Forces: mean absolute error of components and length of

    the worst atom's; dipole: length of the difference; quadrupole: Frobenius norm of that of the traceless ones; nmae_percent:
    100 integral |rho - rho_reference| / N.
    """

    program: str
    level: Level
    reference: Reference
    energy_mev: float | None
    force_mae_mev_per_angstrom: float | None
    force_worst_mev_per_angstrom: float | None
    dipole_millidebye: float
    quadrupole_debye_angstrom: float
    hirshfeld_mae_e: float | None
    nmae_percent: float

    def entry(self) -> dict[str, Any]:
        """For prediction.json, in the units of the names."""
        r = self.reference
        moment = traceless(r.second_moment) * DEBYE_PER_AU * ANGSTROM_PER_BOHR
        skip = ("program", "level", "reference")
        return {
            "program": self.program,
            "level": asdict(self.level),
            "energy_eV": r.energy * EV_PER_HARTREE,
            "forces_eV_per_angstrom": (r.force * EV_PER_ANGSTROM_PER_AU).tolist(),
            "dipole_debye": (r.dipole * DEBYE_PER_AU).tolist(),
            "quadrupole_debye_angstrom": moment.tolist(),
            "hirshfeld_charge_e": r.hirshfeld.tolist(),
            "difference": {field.name: getattr(self, field.name) for field in fields(self) if field.name not in skip},
        }

    def lines(self) -> list[str]:
        """For people."""
        rows = (
            ("energy", self.energy_mev, "meV"),
            ("forces, mean absolute", self.force_mae_mev_per_angstrom, "meV/angstrom"),
            ("force, worst atom", self.force_worst_mev_per_angstrom, "meV/angstrom"),
            ("dipole", self.dipole_millidebye, "mD"),
            ("quadrupole", 1e3 * self.quadrupole_debye_angstrom, "mD angstrom"),
            ("Hirshfeld charges, mean", None if self.hirshfeld_mae_e is None else 1e3 * self.hirshfeld_mae_e, "me"),
            ("density (NMAE)", self.nmae_percent, "%"),
        )
        return [f"  {name:26}{value:10.3f} {unit}" for name, value, unit in rows if value is not None]


def level_of(provenance: str, chosen: Level | None) -> Level:
    """The level to check at: the one chosen, or that of the model's training data. Raises ConfigError if there is neither."""
    if chosen is not None:
        return chosen
    try:
        return Level(**json.loads(provenance))
    except (json.JSONDecodeError, TypeError) as error:
        raise ConfigError("the model does not name the level of theory it learned; give one to check with: level=...") from error


def _known(molecule: Molecule, label: Label, basis: Basis, grid: DensityGrid) -> Reference:
    """A label of a molecule whose centre of nuclear charge is the origin, with the Hirshfeld charges of its density."""
    point = torch.as_tensor(grid.point, dtype=torch.float64)
    free = free_atom_densities(molecule, basis, point)
    distance = torch.linalg.vector_norm(point - torch.as_tensor(molecule.position)[:, None], dim=-1)
    deformation = (torch.as_tensor(grid.density, dtype=torch.float64) - free.sum(0)) * torch.as_tensor(grid.weight)
    charge = -(hirshfeld_weights(free, distance) @ deformation).numpy()
    return Reference(label.energy, label.force, label.dipole, label.quadrupole, charge)


def compare(frame: Predicted, level: Level, basis: Basis, scf: ScfSettings, memory_mb: float = 256.0) -> Comparison | str:
    """Run the Kohn-Sham calculation of this frame, from PySCF's own start, and compare. A reason if it gives no result."""
    # About the centre of nuclear charge, where the second moment of the prediction is.
    centred = frame.molecule.moved(frame.molecule.position - nuclear_centre(frame.molecule))
    try:
        label = compute_label(centred, level, scf)
    except DensnetError as error:
        return str(error)
    if isinstance(label, NoLabel):
        return label.reason
    grid = density_on_grid(centred, unpack(label.density_matrix), level.ao_basis, level.grid_level)
    known = _known(centred, label, basis, grid)
    point = torch.as_tensor(grid.point, dtype=torch.float64)
    rho = density_on_points(centred, frame.density, basis, point, memory_mb=memory_mb).cpu().numpy()
    nmae = 100 * float(np.abs(rho - grid.density) @ grid.weight.astype(np.float64)) / centred.n_electrons
    error = None if frame.force is None else (frame.force - known.force) * MEV_PER_ANGSTROM_PER_AU
    return Comparison(
        program=PROGRAM,
        level=level,
        reference=known,
        energy_mev=None if frame.energy is None else (frame.energy - known.energy) * MEV_PER_HARTREE,
        force_mae_mev_per_angstrom=None if error is None else float(np.abs(error).mean()),
        force_worst_mev_per_angstrom=None if error is None else float(np.linalg.norm(error, axis=1).max()),
        dipole_millidebye=float(np.linalg.norm(frame.dipole - known.dipole)) * MILLIDEBYE_PER_AU,
        quadrupole_debye_angstrom=float(np.linalg.norm(traceless(frame.second_moment - known.second_moment)))
        * DEBYE_PER_AU
        * ANGSTROM_PER_BOHR,
        hirshfeld_mae_e=None if frame.hirshfeld is None else float(np.abs(frame.hirshfeld - known.hirshfeld).mean()),
        nmae_percent=nmae,
    )
