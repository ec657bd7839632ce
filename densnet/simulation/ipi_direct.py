"""A trained model inside i-PI's own process, without a socket: this file is the pes_path of an ffdirect block.

    <ffdirect name='densnet'>
      <pes>custom</pes> <pes_path>.../densnet/simulation/ipi_direct.py</pes_path>
      <parameters>{ model: models/ethanol, molecule: ethanol.xyz }</parameters>
      <batch_size>32</batch_size>
    </ffdirect>

i-PI loads the file by its path under its bare name, which therefore must not be that of another package. It is atomic units
on both sides; with batch_size all beads go through one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from densnet.data.geometry import load_geometry
from densnet.model.checkpoint import load_model
from densnet.simulation.ipi import Answer, Evaluator

__DRIVER_NAME__ = "densnet"
__DRIVER_CLASS__ = "DensNetPES"

Result = tuple[float, np.ndarray, np.ndarray, str]


class DensNetPES:
    """model: folder; molecule: name or geometry file, atoms in i-PI's order; charge: e; device: cpu or cuda.

    verbosity is i-PI's own and means nothing here. Raises ModelError, StructureError as the loaders do.
    """

    def __init__(self, model: str, molecule: str, charge: int = 0, device: str = "cpu", verbosity: Any = None) -> None:
        self.evaluate = Evaluator(load_model(model, device), load_geometry(molecule, int(charge))[0], device)

    def __call__(self, cell: Any, position: np.ndarray | list[np.ndarray]) -> Result | list[Result]:
        """position: (N, 3) bohr, or a list of them; the cell is not looked at. (energy, force, zero virial, extras) of each."""
        if isinstance(position, list):
            return [_result(answer) for answer in self.evaluate(np.array(position))]
        return _result(self.evaluate(np.array(position)[None])[0])


def _result(answer: Answer) -> Result:
    return answer.energy, answer.force, np.zeros((3, 3)), answer.extras
