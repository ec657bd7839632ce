"""The whole chain R -> rho -> E -> F, with the dipole of the density in the same pass."""

from __future__ import annotations

import torch
from torch import nn

from densnet.basis.shells import Basis
from densnet.errors import ModelError
from densnet.model.density import DensityNetwork
from densnet.model.energy import EnergyNetwork
from densnet.observables.multipoles import dipole
from densnet.structures import Density, Molecules, Prediction


class DensNet(nn.Module):
    """A density network and, once trained, an energy network on the same basis.

    hash identifies a saved model (set by densnet.model.checkpoint).
    """

    def __init__(self, basis: Basis, density: DensityNetwork, energy: EnergyNetwork | None) -> None:
        super().__init__()
        self.basis, self.density, self.energy = basis, density, energy
        self.hash = "unsaved"

    def forward(self, molecules: Molecules, forces: bool = True, create_graph: bool = False) -> Prediction:
        """One pass. Forces are minus the gradient of E(R, rho(R)) through both networks; create_graph keeps them

        differentiable for training. Without an energy network energy and force are NaN and None.
        """
        if self.energy is None:
            return self.density_only(molecules)
        if forces and not molecules.position.requires_grad:
            molecules = molecules.at(molecules.position.detach().requires_grad_())
        with torch.set_grad_enabled(forces or torch.is_grad_enabled()):
            density = self.density(molecules)
            moment = dipole(molecules, density, self.basis.multiplicity)
            energy = self.energy(molecules, density)
            force = None
            if forces:
                force = -torch.autograd.grad(
                    energy.sum(), molecules.position, create_graph=create_graph, retain_graph=create_graph
                )[0]
        return Prediction(energy, force, moment, density)

    def density_only(self, molecules: Molecules) -> Prediction:
        """Density and dipole; energy NaN, force None."""
        density = self.density(molecules)
        moment = dipole(molecules, density, self.basis.multiplicity)
        return Prediction(moment.new_full((molecules.n,), torch.nan), None, moment, density)

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        """Evaluation without a graph: everything detached. Raises ModelError if there is no energy network."""
        if self.energy is None:
            raise ModelError("this model has a density network only; energies and forces need stage=energy or joint first")
        with torch.enable_grad() if forces else torch.no_grad():
            result = self(molecules, forces=forces)
        density = Density(result.density.coefficient.detach(), result.density.exponent.detach())
        force = None if result.force is None else result.force.detach()
        return Prediction(result.energy.detach(), force, result.dipole.detach(), density)
