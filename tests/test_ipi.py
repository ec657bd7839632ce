"""The i-PI driver: the protocol byte by byte, its failures in one line, and path-integral runs with i-PI itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from conftest import untrained
from simulation_potentials import WATER, Failing, Flowing, Springs

from densnet.basis.shells import Basis
from densnet.errors import ModelError, SimulationError
from densnet.model.checkpoint import Architecture, DensitySettings, EnergySettings, Provenance, load_model, save_model
from densnet.simulation import ipi_direct
from densnet.simulation.ipi import Client, Evaluator, connect, main
from densnet.structures import Molecules
from densnet.units import ANGSTROM_PER_BOHR

ROOT = Path(__file__).parents[1]
CELL = np.eye(3) * 30.0
INIT = b"INIT".ljust(12) + np.array([0, 0], dtype=np.int32).tobytes()


def word(text: str) -> bytes:
    return text.ljust(12).encode()


def posdata(position: np.ndarray, n: int | None = None) -> bytes:
    n = len(position) if n is None else n
    return word("POSDATA") + CELL.tobytes() + np.linalg.inv(CELL).tobytes() + np.int32(n).tobytes() + position.tobytes()


def talk(message: bytes, potential=None) -> tuple[bytes, int | BaseException]:
    """(what the client answers to these bytes, what it returns or raises)."""
    server, client = socket.socketpair()
    result: list[int | BaseException] = []

    def serve() -> None:
        try:
            result.append(Client(Evaluator(potential or Springs(WATER), WATER), client).serve())
        except Exception as error:
            result.append(error)
        client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve)
    thread.start()
    server.sendall(message)
    server.shutdown(socket.SHUT_WR)
    heard = b""
    while part := server.recv(4096):
        heard += part
    thread.join()
    server.close()
    client.close()
    return heard, result[0]


def test_a_conversation_byte_by_byte() -> None:
    """Two structures in turn, STATUS in every state; energy, force and dipole by hand."""
    positions = [WATER.position + 0.1 * np.sin(np.arange(9)).reshape(3, 3), WATER.position * 1.1]
    message = word("STATUS") + INIT
    for position in positions:
        message += word("STATUS") + posdata(position) + word("STATUS") + word("GETFORCE")
    heard, result = talk(message + word("STATUS") + word("EXIT"))
    assert result == 2
    assert heard[:12] == b"NEEDINIT    "
    at = 12
    for position in positions:
        expected = Springs(WATER).predict(Molecules.of([WATER.moved(position)]))
        assert expected.force is not None
        assert heard[at : at + 36] == b"READY       HAVEDATA    FORCEREADY  "
        at += 36
        assert np.frombuffer(heard, np.float64, 1, at)[0] == expected.energy.item()
        assert np.frombuffer(heard, np.int32, 1, at + 8)[0] == 3
        np.testing.assert_array_equal(np.frombuffer(heard, np.float64, 9, at + 12).reshape(3, 3), expected.force)
        np.testing.assert_array_equal(np.frombuffer(heard, np.float64, 9, at + 84), np.zeros(9))
        length = int(np.frombuffer(heard, np.int32, 1, at + 156)[0])
        extras = json.loads(heard[at + 160 : at + 160 + length])
        assert extras == {"dipole": pytest.approx(np.array([-0.6, 0.3, 0.3]) @ position, abs=1e-14)}
        at += 160 + length
    assert heard[at:] == b"READY       "


def test_a_batch_goes_through_one_pass() -> None:
    positions = np.array([WATER.position, WATER.position * 1.1, WATER.position * 0.95])
    text = b"mine:1, batch_size:3"
    message = b"INIT".ljust(12) + np.array([0, len(text)], dtype=np.int32).tobytes() + text
    message += word("POSDATA") + np.int32(3).tobytes() + np.zeros(3 * 18).tobytes() + positions.tobytes()
    potential = Flowing(WATER)
    heard, result = talk(message + word("GETFORCE") + word("EXIT"), potential)
    assert (result, potential.calls) == (3, 1)
    expected = Flowing(WATER).predict(Molecules.of([WATER.moved(position) for position in positions]))
    assert heard[:12] == b"FORCEREADY  "
    np.testing.assert_array_equal(np.frombuffer(heard, np.float64, 3, 12), expected.energy)
    assert np.frombuffer(heard, np.int32, 1, 36)[0] == 3
    np.testing.assert_array_equal(np.frombuffer(heard, np.float64, 27, 40).reshape(9, 3), expected.force)
    at = 40 + 27 * 8 + 27 * 8
    assert expected.charge is not None
    for dipole, charges in zip(expected.dipole.tolist(), expected.charge.view(3, 3).tolist()):
        length = int(np.frombuffer(heard, np.int32, 1, at)[0])
        extras = json.loads(heard[at + 4 : at + 4 + length])
        assert extras == {"dipole": pytest.approx(dipole, abs=1e-14), "charges": pytest.approx(charges, abs=1e-14)}
        at += 4 + length
    assert at == len(heard)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (INIT + posdata(np.zeros((4, 3))), "sent 4 atoms; expected the 3"),
        (INIT + posdata(WATER.position, n=2**31 - 1), "expected the 3"),
        (INIT + posdata(WATER.position)[:-7], "after 65 of 72 bytes of the positions"),
        (INIT + posdata(WATER.position)[:40], "after 28 of 144 bytes of the cell"),
        (INIT[:5], "after 5 of 12 bytes of a header"),
        (INIT, "after 0 of 12 bytes of a header"),
        (INIT + b"HTTP/1.1 200", "sent 'HTTP/1.1 200'"),
        (posdata(WATER.position), "sent 'POSDATA'; expected STATUS, INIT"),
        (INIT + word("GETFORCE"), "sent 'GETFORCE'"),
        (b"INIT".ljust(12) + np.array([0, 12], np.int32).tobytes() + b"batch_size:0", "batch_size '0'"),
    ],
)
def test_what_breaks_the_protocol_ends_in_one_line(message: bytes, expected: str) -> None:
    _, error = talk(message)
    assert isinstance(error, SimulationError)
    assert expected in str(error)
    assert "\n" not in str(error)


def test_results_that_are_not_finite_are_not_sent() -> None:
    heard, error = talk(INIT + posdata(WATER.position) + word("GETFORCE"), Failing(WATER, at_call=1, replica=0))
    assert isinstance(error, SimulationError)
    assert "not finite" in str(error)
    assert heard == b""


def test_no_server_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # bound, so that nobody else listens there, but not listening
        taken.bind(("localhost", 0))
        port = taken.getsockname()[1]
        with pytest.raises(SimulationError, match=f"no i-PI server at localhost:{port} .*start i-pi first"):
            connect("localhost", port)
    with pytest.raises(SimulationError, match=r"no i-PI server at .*nobody"):
        connect("nobody", prefix=f"{tmp_path}/")
    with pytest.raises(SystemExit) as caught:
        main([f"{tmp_path}/none", "water", "-u", "-a", "nobody", "-w", "0"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no model in")
    assert said.count("\n") == 1


def test_the_server_may_come_later(tmp_path: Path) -> None:
    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{tmp_path}/late")
            server.listen()
            server.accept()[0].close()

    timer = threading.Timer(0.3, listen)
    timer.start()
    connect("late", wait=20.0, prefix=f"{tmp_path}/").close()
    timer.join()


@pytest.fixture(scope="module")
def model_folder(basis: Basis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, gentle enough to move atoms by."""
    folder = tmp_path_factory.mktemp("ipi") / "model"
    model = untrained(basis).float()
    assert model.energy is not None
    model.energy.scale.fill_(1e-3)
    architecture = Architecture(
        DensitySettings(channels=6, lmax=(2, 3), hidden=8, radial=4, neighbours=2.0),
        EnergySettings(channels=6, layers=2, lmax=2, hidden=8, radial=4, neighbours=2.0, invariants=3),
    )
    save_model(folder, model, architecture, Provenance())
    return folder


def test_inside_the_process_of_ipi(model_folder: Path) -> None:
    """The interface that ffdirect calls: one structure, a list, an unknown model."""
    pes = getattr(ipi_direct, ipi_direct.__DRIVER_CLASS__)(model=str(model_folder), molecule="water", verbosity=0)
    position = pes.evaluate.molecule.position
    energy, force, virial, extras = pes(CELL, position)
    expected = load_model(model_folder).predict(Molecules.of([pes.evaluate.molecule]))
    assert expected.force is not None
    assert energy == expected.energy.item()
    np.testing.assert_array_equal(force, expected.force.double())
    assert not virial.any()
    assert json.loads(extras)["dipole"] == expected.dipole[0].tolist()
    assert expected.charge is not None
    assert json.loads(extras)["charges"] == expected.charge.tolist()
    assert [one[0] for one in pes([CELL] * 2, [position, position])] == pytest.approx([energy, energy], abs=1e-6)
    with pytest.raises(ModelError, match="no model in"):
        ipi_direct.DensNetPES("no/model", "water")


INPUT = """
<simulation verbosity='quiet' floatformat='%25.16e'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step, conserved, temperature{{kelvin}}, potential ] </properties>
    <trajectory filename='position' stride='1'> positions </trajectory>
    <trajectory filename='force' stride='1'> forces </trajectory>
    <trajectory filename='dipole' stride='1' extra_type='dipole'> extras </trajectory>
    <trajectory filename='charges' stride='1' extra_type='charges'> extras </trajectory>
  </output>
  <total_steps> 4 </total_steps>
  <prng> <seed> 7 </seed> </prng>
  {forcefield}
  <system>
    <initialize nbeads='4'>
      <file mode='xyz'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces> <force forcefield='densnet'/> </forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 0.25 </timestep>
        <thermostat mode='pile_g'> <tau units='femtosecond'> 50 </tau> </thermostat>
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  </system>
</simulation>
"""


def blocks(path: Path, skip: int) -> np.ndarray:
    """The last three numbers of every line after the `skip` header lines of each xyz frame."""
    lines = path.read_text().splitlines()
    frames = [lines[k + skip : k + 5] for k in range(0, len(lines), 5)]
    return np.array([[line.split()[1:] for line in frame] for frame in frames], dtype=float)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("way", [pytest.param("inet", marks=pytest.mark.slow), "unix", "direct"])
def test_path_integrals_with_ipi_itself(way: str, model_folder: Path, tmp_path: Path) -> None:
    """Water with 4 beads: what i-PI wrote as force, energy and dipole of every bead is the model at that bead's position."""
    pytest.importorskip("ipi", reason="i-PI is not installed: pip install ipi")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    name, port = f"densnet_test_{os.getpid()}", free_port()
    forcefield = {
        "inet": f"<ffsocket mode='inet' name='densnet'> <address>localhost</address> <port>{port}</port> </ffsocket>",
        "unix": f"<ffsocket mode='unix' name='densnet'> <address>{name}</address> <batch_size>4</batch_size> </ffsocket>",
        "direct": f"<ffdirect name='densnet'> <pes>custom</pes> <pes_path>{ipi_direct.__file__}</pes_path> "
        f"<parameters>{{ model: {model_folder}, molecule: {tmp_path}/water.xyz }}</parameters> "
        "<batch_size>4</batch_size> </ffdirect>",
    }[way]
    (tmp_path / "input.xml").write_text(INPUT.format(forcefield=forcefield))
    header = "# CELL(abcABC): 40 40 40 90 90 90 cell{atomic_unit} positions{atomic_unit}"
    rows = [f"{s} {' '.join(f'{x:.12f}' for x in r)}" for s, r in zip("OHH", WATER.position)]
    (tmp_path / "start.xyz").write_text("\n".join(["3", header, *rows]) + "\n")
    write(tmp_path / "water.xyz", Atoms(WATER.number, WATER.position * ANGSTROM_PER_BOHR))

    server = subprocess.Popen(
        [sys.executable, Path(sys.executable).with_name("i-pi"), "input.xml"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        if way != "direct":
            where = ["-u", "-a", name] if way == "unix" else ["-p", str(port)]
            driver = subprocess.run(
                [sys.executable, "-m", "densnet.simulation.ipi", model_folder, tmp_path / "water.xyz", *where, "-w", "60"],
                capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=100, check=False,
            )  # fmt: skip
            assert driver.returncode == 0, driver.stderr
            assert driver.stdout == "i-PI has finished: 20 structures computed\n"
        said = server.communicate(timeout=100)[0]
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 0, said

    position, force = (
        np.array([blocks(tmp_path / f"run.{what}_{b}.xyz", 2) for b in range(4)]) for what in ("position", "force")
    )
    assert position.shape == (4, 5, 3, 3)
    assert np.abs(position[0, -1] - position[1, -1]).max() > 1e-3  # the beads have parted
    model = load_model(model_folder)
    beads = Molecules.of([WATER.moved(r) for r in position.reshape(-1, 3, 3)])
    expected = model.predict(beads)
    assert expected.force is not None
    np.testing.assert_allclose(force.reshape(-1, 3), expected.force, atol=2e-6)
    assert expected.charge is not None
    dipole, charges = (
        np.array(
            [
                [
                    line.split()
                    for line in (tmp_path / f"run.{what}_{b}").read_text().splitlines()
                    if not line.lstrip().startswith("#")
                ]
                for b in range(4)
            ],
            dtype=float,
        )
        for what in ("dipole", "charges")
    )
    np.testing.assert_allclose(dipole.reshape(-1, 3), expected.dipole, atol=1e-5)
    np.testing.assert_allclose(charges.reshape(-1), expected.charge, atol=1e-5)
    potential = np.loadtxt(tmp_path / "run.out")[:, 3]
    mean = expected.energy.double().reshape(4, 5).mean(dim=0)
    np.testing.assert_allclose(potential, mean, atol=1e-5)
    assert torch.unique(expected.energy).numel() > 10
