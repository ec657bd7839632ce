"""Geometries by name (ASE's g2, s22 and extra molecules) or from any file ASE reads: an edge, angstrom outside."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule as build_molecule
from ase.build.molecule import extra
from ase.collections import g2, s22
from ase.io import read

from densnet.errors import StructureError
from densnet.structures import Molecule
from densnet.units import ANGSTROM_PER_BOHR

TRIVIAL_NAMES = {
    "water": "H2O", "ammonia": "NH3", "methane": "CH4", "ethane": "C2H6", "propane": "C3H8", "ethene": "C2H4", "ethyne": "C2H2",
    "methanol": "CH3OH", "ethanol": "CH3CH2OH", "methanethiol": "CH3SH", "ethanethiol": "CH3CH2SH", "benzene": "C6H6",
    "pyridine": "C5H5N", "furan": "C4H4O", "pyrrole": "C4H4NH", "thiophene": "C4H4S", "acetone": "CH3COCH3",
    "acetaldehyde": "CH3CHO", "formaldehyde": "H2CO", "formic acid": "HCOOH", "acetic acid": "CH3COOH", "acetamide": "CH3CONH2",
    "acetonitrile": "CH3CN", "dimethyl ether": "CH3OCH3", "methylamine": "H3CNH2", "hydrogen": "H2", "nitrogen": "N2",
    "carbon monoxide": "CO", "carbon dioxide": "CO2", "hydrogen fluoride": "HF", "hydrogen cyanide": "HCN",
    "hydrogen peroxide": "H2O2", "hydrogen sulfide": "SH2", "water dimer": "Water_dimer", "phenol dimer": "Phenol_dimer",
}  # fmt: skip
COLLECTIONS = (*g2.names, *extra, *s22.names)


def load_geometry(name_or_file: str, charge: int = 0) -> list[Molecule]:
    """The molecule of this name, or every frame of this file, as molecules of total charge `charge`.

    A name is a common one (water), or one of ASE's g2, extra and s22 molecules; upper and lower case and _ for a space
    do not matter unless that is ambiguous. Raises StructureError for a name or file that is unknown, unreadable or periodic.
    """
    if name := _collection_name(name_or_file):
        frames = [s22[name] if name in s22.names else build_molecule(name)]
    elif Path(name_or_file).is_file():
        try:
            found = read(name_or_file, index=":")
        except Exception as error:  # ASE's readers raise whatever their parsers raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StructureError(
                f"{name_or_file} cannot be read by ASE ({reason}); expected a geometry file such as xyz"
            ) from error
        frames = found if isinstance(found, list) else [found]
        if not frames:
            raise StructureError(f"{name_or_file} holds no frame; expected at least one geometry")
    else:
        names = (*TRIVIAL_NAMES, *COLLECTIONS)
        lower = {name.lower(): name for name in reversed(names)}
        close = [lower[match] for match in get_close_matches(name_or_file.lower(), lower, n=3, cutoff=0.5)]
        hint = f"did you mean {' or '.join(close)}?" if close else "give the path of a geometry file, for example xyz"
        raise StructureError(f"{name_or_file} is neither a file nor a known molecule; {hint}")
    return [_molecule(atoms, charge, name_or_file) for atoms in frames]


def _collection_name(name: str) -> str | None:
    if name in COLLECTIONS:
        return name
    plain = name.lower().replace("_", " ")
    if plain in TRIVIAL_NAMES:
        return TRIVIAL_NAMES[plain]
    matches = [known for known in COLLECTIONS if known.lower() == name.lower()]
    return matches[0] if len(matches) == 1 else None


def _molecule(atoms: Atoms, charge: int, where: str) -> Molecule:
    if np.any(atoms.pbc):
        raise StructureError(f"{where} is periodic; expected a molecule in vacuum; remove the cell and its periodicity")
    return Molecule(np.array(atoms.numbers), atoms.positions / ANGSTROM_PER_BOHR, charge)
