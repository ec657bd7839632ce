"""Write the tables of PAGES from the files in docs/results: python docs/tables.py. The tests see that it was done."""

from __future__ import annotations

import re
from collections.abc import Callable

import density_tables as density
import energy_tables as energies
import spectra_tables as spectra
from shared_tables import DOCS

PAGES = (DOCS / "density.md", DOCS / "energies.md", DOCS / "spectra.md")

BLOCKS: dict[str, Callable[[], str]] = {
    "basis": density.basis_floors,
    "learning-curve": density.learning_curve,
    "fine-tuning": density.fine_tuning,
    "optimizers": density.optimizers,
    "shipped": density.shipped,
    "benchmark": density.benchmark,
    "energy-shipped": energies.energy_shipped,
    "energy-variants": energies.energy_variants,
    "energy-curve": energies.energy_curve,
    "energy-tuning": energies.energy_tuning,
    "dynamics": energies.dynamics,
    "speed": energies.speed,
    "training-speed": energies.training_speed,
    "chains": energies.chains,
    "harmonic-trans": lambda: spectra.harmonic("trans"),
    "harmonic-gauche": lambda: spectra.harmonic("gauche"),
    "models": spectra.models,
    "dipole-derivatives": density.dipole_derivatives,
    "measured-bands": spectra.measured_bands,
    "measured-peaks": spectra.measured_peaks,
    "similarity": spectra.similarity,
    "assignment": spectra.assignment,
    "observables": spectra.observables,
    "first-guess": spectra.first_guess,
}


def filled(text: str) -> str:
    """The page with every block between its marks made anew. Raises KeyError for a block nobody makes."""
    return re.sub(
        r"<!-- begin:(\S+) -->.*?<!-- end:\1 -->",
        lambda m: f"<!-- begin:{m[1]} -->\n\n{BLOCKS[m[1]]()}\n\n<!-- end:{m[1]} -->",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
