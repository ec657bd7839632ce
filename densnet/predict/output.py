"""What python -m densnet.predict writes: an edge. eV, angstrom, debye and e outside; every name carries or states its unit.

prediction.xyz      extended xyz, one frame per predicted frame. ASE reads energy (eV), forces (eV/angstrom) and dipole
                    (e*angstrom) as results, hirshfeld_charge and potential_derived_charge (e) as arrays, the rest as info.
prediction.json     everything, with the frames that failed and why, the model, and how novelty was judged.
frame-0000-*.cube   density (e/bohr^3), difference from the free atoms (e/bohr^3), potential (hartree/e).
frame-0000-surface.csv    points of the van der Waals surface (angstrom) and the potential there (V).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from densnet.basis.shells import Basis
from densnet.errors import ConfigError
from densnet.files import replacing, write_json, write_text
from densnet.observables.cube import CubeGrid, density_cube, difference_cube, potential_cube
from densnet.observables.potential import electrostatic_potential_on_points
from densnet.observables.surface import van_der_waals_surface
from densnet.predict.comparison import Comparison
from densnet.predict.frames import Failed, Predicted, traceless
from densnet.units import (
    ANGSTROM_PER_BOHR,
    DEBYE_PER_AU,
    E_ANGSTROM_PER_AU,
    EV_PER_ANGSTROM_PER_AU,
    EV_PER_HARTREE,
)

CUBES = {"density": density_cube, "difference": difference_cube, "potential": potential_cube}
CONVENTIONS = {
    "dipole": "from negative to positive charge; of an ion about its centre of nuclear charge",
    "second_moment": "sum Z R R - integral r r rho about the centre of nuclear charge, not traceless",
    "quadrupole": "(3 M - tr M) / 2 of the second moment M (Buckingham)",
    "hirshfeld_charge": "free atoms of the model's basis as reference",
    "potential_derived_charge": "fitted to the potential on Merz-Kollman shells, total charge exact",
    "atom": "atoms and frames are counted from 0",
}


def check_cubes(names: list[str]) -> None:
    """Raises ConfigError for a name that is no cube."""
    if unknown := set(names) - set(CUBES):
        raise ConfigError(f"cubes has {', '.join(sorted(map(str, unknown)))}; expected some of {', '.join(CUBES)}")


def write_cubes(folder: Path, frame: Predicted, basis: Basis, names: list[str], spacing: float, memory_mb: float) -> list[str]:
    """The cubes of a frame, names of CUBES; spacing: bohr. Returns the names of the files."""
    grid, made = CubeGrid.around(frame.molecule, spacing), []
    for name in names:
        path = folder / f"frame-{frame.index:04d}-{name}.cube"
        CUBES[name](path, frame.molecule, frame.density, basis, grid, memory_mb=memory_mb, progress=False)
        made.append(path.name)
    return made


def write_surface(folder: Path, frame: Predicted, basis: Basis, scale: float, memory_mb: float) -> str:
    """Potential on the surface of spheres of `scale` times the van der Waals radii. Returns the name of the file."""
    point = van_der_waals_surface(frame.molecule, scale)
    value = electrostatic_potential_on_points(frame.molecule, frame.density, basis, point, memory_mb=memory_mb)
    rows = np.column_stack([point.cpu().numpy() * ANGSTROM_PER_BOHR, value.cpu().numpy() * EV_PER_HARTREE])
    path = folder / f"frame-{frame.index:04d}-surface.csv"
    lines = "".join("{:.6f},{:.6f},{:.6f},{:.6f}\n".format(*row) for row in rows)
    write_text(path, "x_angstrom,y_angstrom,z_angstrom,potential_V\n" + lines)
    return path.name


def entry(frame: Predicted, comparison: Comparison | str | None, files: list[str]) -> dict[str, Any]:
    """A frame in prediction.json. comparison: with the reference method, or why there is none."""
    molecule, second = frame.molecule, frame.second_moment
    out: dict[str, Any] = {
        "frame": frame.index,
        "number": molecule.number.tolist(),
        "charge_e": molecule.charge,
        "position_angstrom": (molecule.position * ANGSTROM_PER_BOHR).tolist(),
        "energy_eV": None if frame.energy is None else frame.energy * EV_PER_HARTREE,
        "forces_eV_per_angstrom": None if frame.force is None else (frame.force * EV_PER_ANGSTROM_PER_AU).tolist(),
        "dipole_debye": (frame.dipole * DEBYE_PER_AU).tolist(),
        "second_moment_e_angstrom2": (second * ANGSTROM_PER_BOHR**2).tolist(),
        "quadrupole_debye_angstrom": (traceless(second) * DEBYE_PER_AU * ANGSTROM_PER_BOHR).tolist(),
    }
    for name in ("hirshfeld", "potential_derived"):
        if (charge := getattr(frame, name)) is not None:
            out[f"{name}_charge_e"] = charge.tolist()
    if frame.novelty is not None:
        distance = [float(d) if np.isfinite(d) else None for d in frame.novelty.atoms]
        out["novelty"] = {
            "verdict": frame.novelty.verdict,
            "distance": frame.novelty.distance if np.isfinite(frame.novelty.distance) else None,
            "atom": frame.novelty.atom,
            "atom_distance": distance,
            "statement": frame.novelty.statement,
        }
    if frame.spread is not None:
        out["committee"] = asdict(frame.spread)
    if comparison is not None:
        out["reference"] = {"failed": comparison} if isinstance(comparison, str) else comparison.entry()
    if files:
        out["files"] = files
    return out


def atoms_of(frame: Predicted) -> Atoms:
    """A frame as ASE atoms with the results attached."""
    molecule = frame.molecule
    atoms = Atoms(molecule.number, molecule.position * ANGSTROM_PER_BOHR)
    atoms.info = {
        "frame": frame.index,
        "charge": molecule.charge,
        "quadrupole_debye_angstrom": (traceless(frame.second_moment) * DEBYE_PER_AU * ANGSTROM_PER_BOHR).ravel(),
        "units": "energy eV, forces eV/angstrom, dipole e*angstrom, charges e",
    }
    if frame.novelty is not None:
        atoms.info |= {"novelty": frame.novelty.verdict, "novelty_distance": frame.novelty.distance}
    for name in ("hirshfeld", "potential_derived"):
        if (charge := getattr(frame, name)) is not None:
            atoms.set_array(f"{name}_charge", charge)
    results: dict[str, Any] = {"dipole": frame.dipole * E_ANGSTROM_PER_AU}
    if frame.energy is not None and frame.force is not None:
        results |= {"energy": frame.energy * EV_PER_HARTREE, "forces": frame.force * EV_PER_ANGSTROM_PER_AU}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def write_prediction(
    folder: Path, head: dict[str, Any], entries: list[dict[str, Any]], atoms: list[Atoms], failed: list[Failed]
) -> None:
    """prediction.json and prediction.xyz (none if every frame failed). head: what is said of the run as a whole."""
    everything = {
        "schema": "densnet/prediction",
        "version": 1,
        **head,
        "conventions": CONVENTIONS,
        "frames": entries,
        "failed": [asdict(one) for one in failed],
    }
    write_json(folder / "prediction.json", everything)
    if atoms:
        with replacing(folder / "prediction.xyz") as temporary:
            write(temporary, atoms, format="extxyz")
