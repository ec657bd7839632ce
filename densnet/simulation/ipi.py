"""Path integrals and other dynamics by i-PI: python -m densnet.simulation.ipi models/ethanol ethanol.xyz -u -a densnet.

A client of i-PI's socket protocol (V. Kapil et al., Comput. Phys. Commun. 236, 214 (2019); i-PI's manual, "Communication
protocol"). i-PI speaks first; every message starts with a word of 12 characters, numbers are int32 and float64 of the machine,
everything is in atomic units:

    STATUS                                                    answered NEEDINIT, READY or HAVEDATA
    INIT     bead, n, text[n]                                 the text may hold batch_size:B (i-PI 3.3 and later)
    POSDATA  cell[9], inverse cell[9], N, position[3N]        without batches
    POSDATA  N, (cell[9], inverse cell[9])[B], position[B, 3N]    with B > 1 structures a message
    GETFORCE                                                  answered FORCEREADY, energy[B], N, force[B, 3N], virial[B, 9],
                                                              and B times n, extras[n]
    EXIT

The extras are JSON, {"dipole": [x, y, z], "charges": [q of every atom]} in e bohr and e, which i-PI writes with <trajectory ...
extra_type="dipole"> extras; charges are those of the atom-centred functions, absent if the potential has none. The virial is
zero: molecules are in vacuum, and the cell is not looked at.
"""

from __future__ import annotations

import argparse
import json
import socket
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from densnet.cli import run
from densnet.data.geometry import load_geometry
from densnet.errors import SimulationError
from densnet.model.compiled import load_potential
from densnet.simulation.engine import Potential
from densnet.structures import Molecule, Molecules

WORD = 12
SOCKET_PREFIX = "/tmp/ipi_"  # i-PI's own


class Answer(NamedTuple):
    """Of one structure: energy, hartree; force (N, 3), hartree/bohr; extras: JSON."""

    energy: float
    force: np.ndarray
    extras: str


class Evaluator:
    """A potential for copies of one molecule, in numpy."""

    def __init__(self, potential: Potential, molecule: Molecule, device: torch.device | str = "cpu") -> None:
        self.potential, self.molecule, self.device = potential, molecule, device
        self._batch = Molecules.of([molecule], device)

    def __call__(self, position: np.ndarray) -> list[Answer]:
        """position: (B, N, 3) bohr. All structures go to the potential together.

        Raises SimulationError if the number of atoms is another or a result is not finite.
        """
        self.check(position.shape[1])
        if self._batch.n != len(position):
            self._batch = Molecules.of([self.molecule] * len(position), self.device)
        at = torch.as_tensor(np.array(position, dtype=np.float64)).reshape(-1, 3).to(self.device)
        prediction = self.potential.predict(self._batch.at(at), forces=True)
        assert prediction.force is not None
        energy = prediction.energy.double().cpu().numpy()
        force = prediction.force.double().cpu().numpy().reshape(position.shape)
        extras = {"dipole": prediction.dipole.double().cpu().numpy()}
        if prediction.charge is not None:
            extras["charges"] = prediction.charge.double().cpu().numpy().reshape(position.shape[:2])
        for b in range(len(position)):
            if not all(np.isfinite(part[b]).all() for part in (energy, force, *extras.values())):
                raise SimulationError(
                    f"energy, force, dipole or a charge of structure {b} is not finite (energy {energy[b]:.6g} hartree); "
                    "expected numbers; try a smaller time step, or a start nearer to the training geometries"
                )
        more = [json.dumps({name: part[b].tolist() for name, part in extras.items()}) for b in range(len(position))]
        return [Answer(float(e), f, text) for e, f, text in zip(energy, force, more)]

    def check(self, n: int) -> None:
        """Raises SimulationError unless n is the number of atoms of the molecule."""
        if n != self.molecule.number.size:
            raise SimulationError(
                f"i-PI sent {n} atoms; expected the {self.molecule.number.size} of the molecule given to densnet, in the same "
                "order; give both the same structure"
            )


def connect(address: str, port: int | None = None, wait: float = 0.0, prefix: str = SOCKET_PREFIX) -> socket.socket:
    """A socket to i-PI: at address and port, or without a port the unix socket named address.

    wait: seconds during which a server that is not there yet is tried again. Raises SimulationError if there is none.
    """
    where = f"{prefix}{address}" if port is None else f"{address}:{port}"
    deadline = time.monotonic() + wait
    while True:
        try:
            if port is not None:
                connection = socket.create_connection((address, port), timeout=max(wait, 10.0))
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(None)
                return connection
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(where)
            except OSError:
                connection.close()
                raise
            return connection
        except OSError as error:
            if time.monotonic() >= deadline:
                raise SimulationError(
                    f"no i-PI server at {where} ({error.strerror or error}); expected one that listens; start i-pi first, "
                    "with the address of its ffsocket block"
                ) from error
            time.sleep(0.1)


@dataclass
class Client:
    """One conversation with i-PI."""

    evaluate: Evaluator
    connection: socket.socket

    def serve(self) -> int:
        """Answer until i-PI says EXIT; the number of structures computed.

        Raises SimulationError if i-PI goes away before, says what is not in the protocol or sends another number of atoms,
        and what the potential raises.
        """
        computed, batch, answers = 0, 0, None
        while True:
            word = self._receive(WORD, "a header").decode("ascii", errors="replace").strip()
            if word == "STATUS":
                self._send(_word("NEEDINIT" if not batch else "READY" if answers is None else "HAVEDATA"))
            elif word == "INIT":
                _, length = self._numbers(2, np.int32, "INIT")
                batch = _batch_size(self._receive(int(length), "the text of INIT").decode("utf-8", errors="replace"))
            elif word == "POSDATA" and batch:
                answers = self.evaluate(self._positions(batch))
                computed += batch
            elif word == "GETFORCE" and answers is not None:
                self._send(_forces(answers))
                answers = None
            elif word == "EXIT":
                return computed
            else:
                raise SimulationError(
                    f"i-PI sent {word!r}; expected STATUS, INIT, then POSDATA and GETFORCE in turn, or EXIT; is it i-PI?"
                )

    def _positions(self, batch: int) -> np.ndarray:
        if batch == 1:
            self._numbers(18, np.float64, "the cell")
        n = int(self._numbers(1, np.int32, "the number of atoms")[0])
        self.evaluate.check(n)  # before the positions: a wrong number may ask for any amount of memory
        if batch > 1:
            self._numbers(18 * batch, np.float64, "the cells")
        return self._numbers(3 * n * batch, np.float64, "the positions").reshape(batch, n, 3)

    def _numbers(self, n: int, kind: type, what: str) -> np.ndarray:
        return np.frombuffer(self._receive(n * np.dtype(kind).itemsize, what), kind)

    def _receive(self, n: int, what: str) -> bytes:
        parts, left = [], n
        while left > 0:
            try:
                part = self.connection.recv(min(left, 1 << 20))
            except ConnectionError:
                part = b""
            if not part:
                raise SimulationError(
                    f"i-PI closed the connection after {n - left} of {n} bytes of {what}; expected a whole message, and EXIT "
                    "at the end; see what i-PI itself says"
                )
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def _send(self, message: bytes) -> None:
        try:
            self.connection.sendall(message)
        except ConnectionError as error:
            raise SimulationError("i-PI closed the connection before its answer came; see what i-PI itself says") from error


def _word(text: str) -> bytes:
    return text.ljust(WORD).encode()


def _batch_size(text: str) -> int:
    """From the parameters in INIT, name:value separated by commas; one structure a message if nothing is said."""
    for part in text.split(","):
        name, _, value = part.partition(":")
        if name.strip() == "batch_size":
            if not value.strip().isdecimal() or int(value) < 1:
                raise SimulationError(
                    f"i-PI sent batch_size {value.strip()!r}; expected a positive number; correct its input file"
                )
            return int(value)
    return 1


def _forces(answers: list[Answer]) -> bytes:
    extras = [answer.extras.encode() for answer in answers]
    numbers = [
        np.array([answer.energy for answer in answers]),
        np.array([len(answers[0].force)], dtype=np.int32),
        np.array([answer.force for answer in answers]),
        np.zeros((len(answers), 9)),
    ]
    texts = [np.int32(len(text)).tobytes() + text for text in extras]
    return _word("FORCEREADY") + b"".join([part.tobytes() for part in numbers] + texts)


def main(arguments: list[str] | None = None) -> None:
    """The program; a mistake ends as `error: ...` with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m densnet.simulation.ipi",
        description="Energies, forces, dipoles and charges of a trained model for i-PI, through its socket. Start i-pi first.",
        epilog="The input file of i-PI has <ffsocket mode='unix' name='densnet'> <address>densnet</address> </ffsocket>, pbc "
        "left at false. <batch_size>32</batch_size> in it sends 32 beads at once. Dipoles (e bohr) of every bead: "
        "<trajectory filename='dipole' stride='1' extra_type='dipole'> extras </trajectory>; charges (e) likewise.",
    )
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("molecule", help="the molecule by name or geometry file; atoms in i-PI's order")
    parser.add_argument("-c", "--charge", type=int, default=0, help="total charge, e")
    parser.add_argument("-a", "--address", default="localhost", help="host, or with -u the name in i-PI's input (localhost)")
    parser.add_argument("-p", "--port", type=int, default=31415, help="port (31415)")
    parser.add_argument("-u", "--unix", action="store_true", help="use a unix socket")
    parser.add_argument("-S", "--prefix", default=SOCKET_PREFIX, help=f"of the file of a unix socket ({SOCKET_PREFIX})")
    parser.add_argument("-w", "--wait", type=float, default=10.0, help="seconds to wait for i-PI to listen (10)")
    parser.add_argument("-d", "--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--compile", choices=("off", "inference"), default="off", help="quicker steps after minutes of compiling")
    given = parser.parse_args(arguments)

    def serve() -> None:
        molecules = load_geometry(given.molecule, given.charge)
        evaluate = Evaluator(load_potential(given.model, given.device, given.compile), molecules[0], given.device)
        with connect(given.address, None if given.unix else given.port, given.wait, given.prefix) as connection:
            computed = Client(evaluate, connection).serve()
        print(f"i-PI has finished: {computed} structures computed")

    run(serve)


if __name__ == "__main__":
    main()
