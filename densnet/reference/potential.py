"""Reference methods as potentials: what moves the atoms may be Kohn-Sham theory or GFN2-xTB instead of a trained model.

Both give energy, force and dipole in the units and conventions of a model, so that simulate.py, the ASE calculator and the
i-PI driver take them as they are; they have no density in a fitted basis, their Prediction.density has zero columns. A
molecule of a batch that cannot be computed (atoms on top of each other, an SCF that does not converge) gets NaN, which
dynamics takes for a replica to freeze; if none can be computed that is an error.
GFN2-xTB: C. Bannwarth, S. Ehlert, S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import torch
from tblite.exceptions import TBLiteRuntimeError
from tblite.interface import Calculator

from densnet.data.labels import Level, unpack
from densnet.errors import SimulationError, StructureError
from densnet.reference.kohn_sham import PROGRAM, NoLabel, ScfSettings, check, compute_label
from densnet.structures import Density, Molecule, Molecules, Prediction

log = logging.getLogger(__name__)
TBLITE = f"tblite {version('tblite')}"


class Evaluation(NamedTuple):
    """Of one molecule: energy, hartree; force (N, 3), hartree/bohr; dipole (3,), e bohr, about the coordinate origin."""

    energy: float
    force: np.ndarray
    dipole: np.ndarray


@dataclass
class KohnShamPotential:
    """Restricted Kohn-Sham (PySCF) at the level of theory of the labels: the numbers of densnet.reference.kohn_sham.

    warm_start: the density matrix of the same molecule of the batch at the last call starts the next SCF, which saves about
    three of ten cycles. Energies then depend on the past within the SCF threshold: a continued run is the same to this
    threshold; without warm_start it is the same bit for bit.
    hash covers the level of theory and the version of PySCF.
    """

    level: Level = field(default_factory=Level)
    scf: ScfSettings = field(default_factory=ScfSettings)
    warm_start: bool = True
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        self.hash = _hash(program=PROGRAM, **asdict(self.level))
        self._kinds: list[tuple[bytes, int]] = []
        self._past: list[np.ndarray | None] = []

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """One SCF and gradient per molecule of the batch, one after the other.

        Raises StructureError and ConfigError as kohn_sham.check does, SimulationError or StructureError if all molecules fail.
        """
        batch, kinds = _molecules(molecules), _kinds(molecules)
        if kinds != self._kinds:
            self._kinds, self._past = kinds, [None] * len(batch)
            for molecule in batch:
                if isinstance(molecule, Molecule):
                    check(molecule, self.level)
        return _prediction(molecules, _one_by_one(batch, self._evaluate), forces)

    def _evaluate(self, molecule: Molecule, index: int) -> Evaluation:
        guess = self._past[index] if self.warm_start else None
        label = compute_label(molecule, self.level, self.scf, guess)
        if isinstance(label, NoLabel):
            self._past[index] = None
            raise _failure(index, f"{self.level.xc}/{self.level.ao_basis}", label.reason)
        self._past[index] = unpack(label.density_matrix)
        return Evaluation(label.energy, label.force, label.dipole)


@dataclass
class XtbPotential:
    """GFN2-xTB (tblite), closed shells. Every call starts afresh, so that energies depend on positions alone.

    hash covers the method and the version of tblite.
    """

    max_cycle: int = 250
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        self.hash = _hash(program=TBLITE, method="GFN2-xTB")
        self._calculators: dict[tuple[bytes, int], Calculator] = {}

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """One calculation per molecule of the batch.

        Raises StructureError for an odd number of electrons or an unknown element, SimulationError if the charges of no
        molecule become self-consistent.
        """
        batch = _molecules(molecules)
        for molecule in batch:
            if isinstance(molecule, Molecule):
                self._calculator(molecule)
        return _prediction(molecules, _one_by_one(batch, self._evaluate), forces)

    def _evaluate(self, molecule: Molecule, index: int) -> Evaluation:
        calculator = self._calculator(molecule)
        try:
            calculator.update(molecule.position)
            result = calculator.singlepoint()
        except TBLiteRuntimeError as error:
            raise _failure(index, "GFN2-xTB", str(error)) from error
        return Evaluation(float(result.get("energy")), -result.get("gradient"), result.get("dipole"))

    def _calculator(self, molecule: Molecule) -> Calculator:
        key = molecule.number.tobytes(), molecule.charge
        if key not in self._calculators:
            self._calculators[key] = self._made(molecule)
        return self._calculators[key]

    def _made(self, molecule: Molecule) -> Calculator:
        n = molecule.n_electrons
        if n <= 0 or n % 2:
            raise StructureError(
                f"the molecule has {n} electrons at charge {molecule.charge:+d}; expected an even number for closed shells; "
                "set the charge, or choose another molecule: radicals cannot be computed"
            )
        try:
            calculator = Calculator("GFN2-xTB", molecule.number, molecule.position, charge=float(molecule.charge), uhf=0)
        except TBLiteRuntimeError as error:
            reason = " ".join(str(error).split())
            raise StructureError(f"GFN2-xTB cannot treat the molecule ({reason}); expected elements up to Rn") from error
        calculator.set("verbosity", 0)
        calculator.set("max-iter", self.max_cycle)
        return calculator


def _hash(**identity: object) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _kinds(batch: Molecules) -> list[tuple[bytes, int]]:
    """Nuclear charges and total charge of every molecule."""
    number, owner = batch.number.cpu().numpy(), batch.molecule.cpu().numpy()
    return [(number[owner == b].tobytes(), round(float(batch.charge[b]))) for b in range(batch.n)]


def _molecules(batch: Molecules) -> list[Molecule | StructureError]:
    """The molecules, and in place of one that is none what is wrong with it."""
    number, owner = batch.number.cpu().numpy(), batch.molecule.cpu().numpy()
    position, found = batch.position.detach().double().cpu().numpy(), []
    for b in range(batch.n):
        try:
            found.append(Molecule(number[owner == b], position[owner == b], round(float(batch.charge[b]))))
        except StructureError as error:
            found.append(error)
    return found


def _one_by_one(
    batch: Sequence[Molecule | StructureError], evaluate: Callable[[Molecule, int], Evaluation]
) -> list[Evaluation | None]:
    """None for a molecule that cannot be computed; raises what is wrong with the first if that is all of them."""
    found: list[Evaluation | None] = []
    reasons: list[SimulationError | StructureError] = []
    for index, molecule in enumerate(batch):
        try:
            if isinstance(molecule, StructureError):
                raise molecule
            found.append(evaluate(molecule, index))
        except (SimulationError, StructureError) as error:
            reasons.append(error)
            found.append(None)
    if len(reasons) == len(batch):
        raise reasons[0]
    for reason in reasons:
        log.info("%s", reason)
    return found


def _prediction(batch: Molecules, found: Sequence[Evaluation | None], forces: bool) -> Prediction:
    """As a model would say it: float64, on the device of the batch, dipoles of ions about the centre of nuclear charge."""
    position = batch.position.detach().double()
    sizes = torch.bincount(batch.molecule, minlength=batch.n).tolist()
    nothing = [Evaluation(np.nan, np.full((n, 3), np.nan), np.full(3, np.nan)) for n in sizes]
    every = [none if e is None else e for e, none in zip(found, nothing)]
    energy, dipole = (
        torch.as_tensor(np.array(part), device=position.device) for part in zip(*((e.energy, e.dipole) for e in every))
    )
    force = torch.as_tensor(np.concatenate([e.force for e in every]), device=position.device) if forces else None
    number, charge = batch.number.double()[:, None], batch.charge.double()[:, None]
    centre = batch.sum(number * position) / batch.sum(number)
    empty = position.new_zeros(len(position), 0)
    return Prediction(energy, force, dipole - charge * centre, Density(empty, empty))


def _failure(index: int, method: str, reason: str) -> SimulationError:
    return SimulationError(
        f"{method} failed for molecule {index} of the batch ({' '.join(reason.split())}); expected a converged SCF; "
        "try a smaller time step, or another start or level of theory"
    )
