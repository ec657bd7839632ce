"""TorchSim model: an edge. eV, angstrom, eV/angstrom and e*angstrom outside, atomic units inside.

TorchSim (O. Cohen et al., AI Sci. 1, 025003 (2025)) needs Python 3.12; importing this module without it raises ConfigError.
"""

from __future__ import annotations

import torch
from torch import Tensor

from densnet.errors import ConfigError, StructureError
from densnet.simulation.engine import Potential
from densnet.structures import Molecules
from densnet.units import ANGSTROM_PER_BOHR, E_ANGSTROM_PER_AU, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

try:
    from torch_sim.models.interface import ModelInterface  # pyright: ignore[reportMissingImports]
    from torch_sim.state import SimState  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ConfigError(
        f"TorchSim cannot be imported ({error}); expected torch_sim 0.6 or later; with Python 3.12 or later run: "
        "pip install torch-sim-atomistic"
    ) from error


class DensNetModel(ModelInterface):
    """energy (systems,), forces (atoms, 3), dipole (systems, 3) and charges (atoms,) of molecules in vacuum for TorchSim.

    The total charge is the system extra `charge` of the state (atoms_to_state takes it from atoms.info), 0 if absent. The
    dipole of an ion is about its centre of nuclear charge; TorchSim keeps it as a system extra of the same name, and as an atom
    extra the charges of the atom-centred functions (e; absent if the potential has none). There is no stress. potential: where
    it lives is `device`; dtype: of the results.
    Raises StructureError for a periodic state or a charge that is not whole.
    """

    def __init__(self, potential: Potential, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.potential = potential
        self._device, self._dtype = torch.device(device), dtype
        self._compute_stress, self._compute_forces = False, True
        self._memory_scales_with = "n_edges"

    def forward(self, state: SimState, **_: object) -> dict[str, Tensor]:
        """TorchSim's entry point; everything comes from one pass."""
        if bool(state.pbc.any()):
            raise StructureError("the state is periodic; expected molecules in vacuum; set pbc to False")
        charge = getattr(state, "charge", None)
        charge = state.positions.new_zeros(state.n_systems) if charge is None else charge.reshape(state.n_systems)
        if not bool((charge == charge.round()).all()):
            raise StructureError(f"the charges are {charge.tolist()}; expected whole numbers of e; set them to the total charges")
        molecules = Molecules(
            number=state.atomic_numbers.to(self._device, torch.int64),
            position=state.positions.detach().to(self._device, torch.float64) / ANGSTROM_PER_BOHR,
            charge=charge.to(self._device, torch.float64),
            molecule=state.system_idx.to(self._device),
            n=state.n_systems,
        )
        prediction = self.potential.predict(molecules, forces=True)
        assert prediction.force is not None
        found = {
            "energy": prediction.energy.to(self._dtype) * EV_PER_HARTREE,
            "forces": prediction.force.to(self._dtype) * EV_PER_ANGSTROM_PER_AU,
            "dipole": prediction.dipole.to(self._dtype) * E_ANGSTROM_PER_AU,
        }
        return found if prediction.charge is None else found | {"charges": prediction.charge.to(self._dtype)}
