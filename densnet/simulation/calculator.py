"""ASE calculator: an edge. eV, angstrom, eV/angstrom and e*angstrom outside, atomic units inside."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from densnet.errors import StructureError
from densnet.simulation.engine import Potential
from densnet.structures import Molecule, Molecules
from densnet.units import ANGSTROM_PER_BOHR, E_ANGSTROM_PER_AU, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE


class DensNetCalculator(Calculator):
    """energy (eV), forces (eV/angstrom), dipole (e*angstrom) and charges (e) of a molecule in vacuum for ASE.

    The total charge is atoms.info["charge"], 0 if absent. The dipole of an ion is about its centre of nuclear charge. The charges
    are those of the atom-centred functions (densnet.observables.multipoles.atomic_charges); a method without them has none.
    device: where the model lives. Raises StructureError for periodic atoms, a charge that is not whole, or overlapping atoms.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "forces", "dipole", "charges"]

    def __init__(self, model: Potential, device: str = "cpu", **options: Any) -> None:
        super().__init__(**options)
        self.model, self.device = model, device

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; ASE itself does not look into atoms.info."""
        changes = super().check_state(atoms, tol=tol)
        if self.atoms is not None and _charge(self.atoms) != _charge(atoms):
            changes = [*changes, "charge"]
        return changes

    def calculate(
        self, atoms: Atoms | None = None, properties: list[str] | None = None, system_changes: list[str] = all_changes
    ) -> None:
        """ASE's entry point; everything comes from one pass."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        if np.any(self.atoms.pbc):
            raise StructureError("the atoms are periodic; expected a molecule in vacuum; set atoms.pbc = False")
        molecule = Molecule(self.atoms.numbers, self.atoms.positions / ANGSTROM_PER_BOHR, _charge(self.atoms))
        prediction = self.model.predict(Molecules.of([molecule], self.device), forces=True)
        assert prediction.force is not None
        self.results = {
            "energy": prediction.energy.item() * EV_PER_HARTREE,
            "forces": prediction.force.cpu().numpy().astype(np.float64) * EV_PER_ANGSTROM_PER_AU,
            "dipole": prediction.dipole[0].cpu().numpy().astype(np.float64) * E_ANGSTROM_PER_AU,
        }
        if prediction.charge is not None:
            self.results["charges"] = prediction.charge.cpu().numpy().astype(np.float64)


def _charge(atoms: Atoms) -> int:
    charge = atoms.info.get("charge", 0)
    try:
        whole = int(charge)
    except (TypeError, ValueError):
        whole = None
    if whole is None or whole != charge:
        raise StructureError(f'atoms.info["charge"] is {charge!r}; expected a whole number of e; set it to the total charge')
    return whole
