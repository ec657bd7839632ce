"""densnet: electron density, energy, forces and infrared spectra from equivariant networks."""

__version__ = "0.1.0"
