"""Frames of a file in, frames with energy, forces, moments, charges and a word on how new they are out, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from tqdm import tqdm

from densnet.basis.shells import Basis
from densnet.data.geometry import load_geometry
from densnet.data.novelty import Seen
from densnet.errors import ConfigError, DensnetError, StructureError
from densnet.model.densnet import DensNet
from densnet.observables.fitted_charges import potential_derived_charges
from densnet.observables.hirshfeld import hirshfeld
from densnet.observables.multipoles import quadrupole
from densnet.predict.judgement import Novelty, Spread, judge, spread
from densnet.structures import Density, Molecule, Molecules, Prediction
from densnet.units import ANGSTROM_PER_BOHR

CHARGES = ("hirshfeld", "potential_derived")


@dataclass(frozen=True)
class Frame:
    """A frame of the input. molecule: or the error that says why it is none."""

    index: int
    molecule: Molecule | StructureError


@dataclass(frozen=True)
class Failed:
    """A frame without a prediction. reason: one line."""

    index: int
    reason: str


@dataclass(frozen=True)
class Predicted:
    """A frame with what the model says of it, atomic units.

    energy, force: None for a model of the density alone; dipole: (3,) as in Prediction; second_moment: (3, 3) e*bohr^2 about the
    centre of nuclear charge, not traceless; hirshfeld, potential_derived: (N,) e, None if not asked for; novelty: or the
    reason why there is none; spread: of a committee, None without one.
    """

    index: int
    molecule: Molecule
    density: Density
    energy: float | None
    force: np.ndarray | None
    dipole: np.ndarray
    second_moment: np.ndarray
    hirshfeld: np.ndarray | None
    potential_derived: np.ndarray | None
    novelty: Novelty | None
    spread: Spread | None


@dataclass(frozen=True)
class Wanted:
    """What is computed besides the moments. charges: names of CHARGES; memory_mb: bound of temporary memory.

    Raises ConfigError for an unknown name or an impossible number.
    """

    charges: tuple[str, ...] = CHARGES
    batch_size: int = 32
    memory_mb: float = 256.0
    progress: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "charges", tuple(self.charges))
        if unknown := set(self.charges) - set(CHARGES):
            raise ConfigError(f"charges has {', '.join(sorted(map(str, unknown)))}; expected some of {', '.join(CHARGES)}")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; expected 1 or more frames")


def read_frames(name_or_file: str, charge: int | None) -> list[Frame]:
    """Every frame of a geometry file, or the molecule of this name; a frame that is no molecule carries its error.

    charge: total charge of all frames; None takes atoms.info["charge"] of each, 0 where there is none. Raises StructureError
    if the file cannot be read at all or holds no frame.
    """
    if not Path(name_or_file).is_file():
        return [Frame(k, molecule) for k, molecule in enumerate(load_geometry(name_or_file, charge or 0))]
    try:
        found = read(name_or_file, index=":")
    except Exception as error:  # ASE's readers raise whatever their parsers raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StructureError(f"{name_or_file} cannot be read by ASE ({reason}); expected a geometry file such as xyz") from error
    frames = found if isinstance(found, list) else [found]
    if not frames:
        raise StructureError(f"{name_or_file} holds no frame; expected at least one geometry")
    return [Frame(k, _molecule(atoms, charge)) for k, atoms in enumerate(frames)]


def _molecule(atoms: Atoms, charge: int | None) -> Molecule | StructureError:
    try:
        if np.any(atoms.pbc):
            raise StructureError("the frame is periodic; expected a molecule in vacuum; remove the cell and its periodicity")
        total = atoms.info.get("charge", 0) if charge is None else charge
        if isinstance(total, str) or int(total) != total:
            raise StructureError(f"the frame has charge {total!r}; expected a whole number of e; correct it or set charge=...")
        return Molecule(np.array(atoms.numbers), atoms.positions / ANGSTROM_PER_BOHR, int(total))
    except StructureError as error:
        return error


def predict(
    model: DensNet, committee: Sequence[DensNet], frames: Sequence[Frame], seen: Seen | None, wanted: Wanted, device: str
) -> Iterator[Predicted | Failed]:
    """The frames in their order, in batches; a frame that cannot be predicted is Failed and the others go on."""
    with tqdm(total=len(frames), desc="predicting", unit="frame", disable=not wanted.progress) as bar:
        for start in range(0, len(frames), wanted.batch_size):
            batch = frames[start : start + wanted.batch_size]
            refused = {frame.index: reason for frame in batch if (reason := _refused(model, committee, frame)) is not None}
            good = [frame for frame in batch if frame.index not in refused]
            done: dict[int, Predicted | Failed] = {k: Failed(k, reason) for k, reason in refused.items()}
            if good:
                molecules = [frame.molecule for frame in good if isinstance(frame.molecule, Molecule)]
                predictions = _separate(_evaluate(model, molecules, device), molecules)
                others = [_separate(_evaluate(other, molecules, device), molecules) for other in committee]
                for k, (frame, molecule) in enumerate(zip(good, molecules)):
                    own, rest = predictions[k], [other[k] for other in others]
                    done[frame.index] = _finished(frame.index, molecule, own, rest, model.basis, seen, wanted)
            for frame in batch:
                yield done[frame.index]
                bar.update()


def _refused(model: DensNet, committee: Sequence[DensNet], frame: Frame) -> str | None:
    """Why a frame cannot even be tried."""
    if isinstance(frame.molecule, StructureError):
        return str(frame.molecule)
    try:
        for one in (model, *committee):
            one.density.check_elements(Molecules.of([frame.molecule], one.density.frame.exponent.device))
    except DensnetError as error:
        return str(error)
    return None


def _evaluate(model: DensNet, molecules: list[Molecule], device: str) -> Prediction:
    batch = Molecules.of(molecules, device)
    if model.energy is not None:
        return model.predict(batch)
    with torch.no_grad():
        return model.density_only(batch)


def _separate(prediction: Prediction, molecules: list[Molecule]) -> list[Prediction]:
    """One Prediction per molecule of a batch."""
    out, start = [], 0
    for b, molecule in enumerate(molecules):
        atoms = slice(start, start := start + len(molecule.number))
        force = None if prediction.force is None else prediction.force[atoms]
        density = Density(prediction.density.coefficient[atoms], prediction.density.exponent[atoms])
        charge = None if prediction.charge is None else prediction.charge[atoms]
        out.append(Prediction(prediction.energy[b : b + 1], force, prediction.dipole[b : b + 1], density, charge))
    return out


def _finished(
    index: int, molecule: Molecule, own: Prediction, rest: list[Prediction], basis: Basis, seen: Seen | None, wanted: Wanted
) -> Predicted | Failed:
    numbers = [own.dipole, own.density.coefficient, *([] if own.force is None else [own.energy, own.force])]
    if not all(bool(torch.isfinite(x).all()) for x in numbers):
        return Failed(
            index, "the model gives values that are not finite; expected numbers; the geometry is far from any it knows"
        )
    try:
        atomic = hirshfeld(molecule, own.density, basis, memory_mb=wanted.memory_mb) if "hirshfeld" in wanted.charges else None
        fitted = None
        if "potential_derived" in wanted.charges:
            fitted = potential_derived_charges(molecule, own.density, basis, memory_mb=wanted.memory_mb)
    except DensnetError as error:
        return Failed(index, f"no charges: {error}")
    return Predicted(
        index=index,
        molecule=molecule,
        density=own.density,
        energy=None if own.force is None else float(own.energy[0]),
        force=None if own.force is None else own.force.cpu().numpy().astype(np.float64),
        dipole=own.dipole[0].cpu().numpy().astype(np.float64),
        second_moment=second_moment(molecule, own.density, basis),
        hirshfeld=None if atomic is None else atomic.charge,
        potential_derived=fitted,
        novelty=None if seen is None else judge(molecule, seen),
        spread=spread([own, *rest]) if rest else None,
    )


def nuclear_centre(molecule: Molecule) -> np.ndarray:
    """(3,) centre of nuclear charge, bohr."""
    return molecule.number @ molecule.position / molecule.number.sum()


def second_moment(molecule: Molecule, density: Density, basis: Basis) -> np.ndarray:
    """(3, 3) e*bohr^2 about the centre of nuclear charge, not traceless."""
    here = Molecules.of([molecule.moved(molecule.position - nuclear_centre(molecule))], density.coefficient.device)
    return quadrupole(here, density, basis)[0].cpu().numpy()


def traceless(moment: np.ndarray) -> np.ndarray:
    """Buckingham's quadrupole (3 M - tr M) / 2 of a second moment M (A. D. Buckingham, Q. Rev. Chem. Soc. 13, 183 (1959))."""
    return 1.5 * moment - 0.5 * np.trace(moment) * np.eye(3)
