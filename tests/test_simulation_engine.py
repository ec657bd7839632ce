"""The engine on potentials with exact answers."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from math import sqrt

import h5py
import numpy as np
import pytest
import torch
from ase.data import atomic_masses
from simulation_potentials import WATER, Failing, Flowing, Leaking, Springs, Trap, settings

from densnet.errors import DataError, SimulationError, StructureError
from densnet.model import compiled
from densnet.simulation.engine import Replicas, simulate
from densnet.simulation.integrators import State, VelocityVerlet
from densnet.simulation.trajectory import read_trajectory
from densnet.simulation.velocities import angular_momentum, momentum
from densnet.structures import Molecule, Molecules, Prediction
from densnet.units import BOLTZMANN, ELECTRON_MASS_PER_DALTON, FS_PER_AU, MEV_PER_HARTREE, PS_PER_AU

SPRINGS = Springs(WATER)


def run(path, potential=SPRINGS, molecule=WATER, resume=False, overwrite=False, **changes):
    summary = simulate(potential, molecule, settings(**changes), path, progress=False, resume=resume, overwrite=overwrite)
    return summary, read_trajectory(path)


def total_energy(trajectory):
    return trajectory.energy + 0.5 * np.einsum("n,srnx->sr", trajectory.mass, trajectory.velocity**2)


def assert_same(first, second, frames=None):
    for name in ("position", "velocity", "energy", "dipole", "kinetic_temperature", "conserved", "atomic_charge"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one[:frames], other[:frames]), name


def test_the_file_says_what_was_run(tmp_path):
    _, trajectory = run(tmp_path / "deep" / "run.h5", steps=31, record_every=3, replicas=2, seed=7, temperature=310)
    assert trajectory.position.shape == (11, 2, 3, 3)
    assert trajectory.time_step * FS_PER_AU == pytest.approx(1.5, rel=1e-14)
    assert trajectory.integration_step * FS_PER_AU == pytest.approx(0.5, rel=1e-14)
    assert (trajectory.ensemble, trajectory.temperature, trajectory.seed, trajectory.model_hash) == ("nve", 310.0, 7, "springs")
    np.testing.assert_allclose(trajectory.mass, np.array([15.999, 1.008, 1.008]) * ELECTRON_MASS_PER_DALTON, rtol=1e-12)
    assert np.array_equal(trajectory.position[0, 1], WATER.position)


def test_recorded_energy_and_dipole_belong_to_the_recorded_positions(tmp_path):
    _, trajectory = run(tmp_path / "run.h5", replicas=3, record_every=7, equilibration_steps=20)
    frames, replicas = trajectory.energy.shape
    batch = Molecules.of([WATER] * (frames * replicas)).at(torch.as_tensor(trajectory.position.reshape(-1, 3)))
    expected = SPRINGS.predict(batch)
    np.testing.assert_allclose(trajectory.energy.ravel(), expected.energy, rtol=0, atol=1e-15)
    np.testing.assert_allclose(trajectory.dipole.reshape(-1, 3), expected.dipole, rtol=0, atol=1e-14)
    assert np.ptp(trajectory.dipole, axis=0).min() > 1e-3


def test_nve_follows_velocity_verlet_and_time_is_not_skipped(tmp_path):
    """Recorded frames of one replica against the integrator driven by hand from the first of them."""
    _, trajectory = run(tmp_path / "run.h5", replicas=4, record_every=5)
    mass = torch.as_tensor(trajectory.mass)
    evaluate = Replicas(SPRINGS, [WATER], "cpu")
    position, velocity = (torch.as_tensor(x[0, 2:3].copy()) for x in (trajectory.position, trajectory.velocity))
    state = State(position, velocity, evaluate(position))
    for frame in range(1, len(trajectory.energy)):
        for _ in range(5):
            state = VelocityVerlet(0.5 / FS_PER_AU, mass).step(state, evaluate)
        # One replica alone is replica 2 of a batch of 4.
        np.testing.assert_allclose(trajectory.position[frame, 2], state.position[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(trajectory.velocity[frame, 2], state.velocity[0], rtol=0, atol=1e-16)


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nose_hoover"])
def test_recorded_charges_belong_to_the_recorded_positions(tmp_path, ensemble):
    options = {"replicas": 3, "record_every": 7, "equilibration_steps": 20, "ensemble": ensemble}
    _, found = run(tmp_path / "run.h5", potential=Flowing(WATER), record_charges=True, **options)
    assert found.atomic_charge is not None
    assert found.atomic_charge.shape == (*found.energy.shape, 3)
    x = found.position[..., 0]
    expected = np.array([-0.6, 0.3, 0.3]) + 0.1 * (x - x.mean(axis=2, keepdims=True))
    np.testing.assert_allclose(found.atomic_charge, expected, rtol=0, atol=1e-15)
    assert np.ptp(found.atomic_charge, axis=0).min() > 1e-3
    _, without = run(tmp_path / "without.h5", potential=Flowing(WATER), **options)
    assert without.atomic_charge is None
    assert np.array_equal(without.position, found.position)
    with h5py.File(tmp_path / "without.h5") as file:
        assert "atomic_charge" not in file


def test_charges_that_a_potential_does_not_have_are_refused(tmp_path):
    springs = Springs(WATER)
    with pytest.raises(SimulationError, match=r"gives no charges of atoms; .* set simulation.record_charges=false") as caught:
        run(tmp_path / "run.h5", potential=springs, record_charges=True, replicas=50)
    assert "\n" not in str(caught.value)
    assert springs.calls == 1, "no replica was computed in vain"
    assert not list(tmp_path.iterdir())
    with pytest.raises(SimulationError, match="record_charges is 'yes'; expected true or false"):
        run(tmp_path / "run.h5", record_charges="yes")


def test_a_run_that_continues_records_what_it_recorded(tmp_path):
    path, springs = tmp_path / "run.h5", Flowing(WATER)
    run(path, potential=springs, steps=20)
    with pytest.raises(SimulationError, match="was run with record_charges=False; found record_charges=True"):
        run(path, potential=springs, steps=40, resume=True, record_charges=True)
    run(path, potential=springs, steps=20, overwrite=True, record_charges=True)
    with pytest.raises(SimulationError, match="was run with record_charges=True; found record_charges=False"):
        run(path, potential=springs, steps=40, resume=True)


@dataclass
class Interrupted(Flowing):
    """Flowing springs, and somebody who stops them."""

    def predict(self, molecules: Molecules, forces: bool = True) -> Prediction:
        if self.calls == 5:
            raise KeyboardInterrupt
        return super().predict(molecules, forces)


def test_charges_of_the_first_frame_survive_a_restart_at_it(tmp_path):
    """The point from which this run continues lies before its first frame, which is not computed again."""
    options = {"replicas": 3, "steps": 20, "record_charges": True}
    start = [WATER.moved(WATER.position * factor) for factor in (1.0, 1.05, 0.95)]
    _, whole = run(tmp_path / "whole.h5", Flowing(WATER), start, **options)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run.h5", Interrupted(WATER), start, **options)
    springs = Flowing(WATER)
    _, resumed = run(tmp_path / "run.h5", springs, start, resume=True, **options)
    assert springs.calls == 20
    assert_same(resumed, whole)


def test_a_run_begun_before_there_were_charges_continues(tmp_path):
    """Restart version 2 and trajectory version 2: no charge, and a record that does not know the setting."""
    _, whole = run(tmp_path / "whole.h5", steps=60, ensemble="nose_hoover")
    run(tmp_path / "run.h5", steps=30, ensemble="nose_hoover")
    restart = tmp_path / "run.restart.npz"
    with np.load(restart, allow_pickle=False) as file:
        old = dict(file)
    identity = json.loads(str(old["identity"]))
    del old["charge"], identity["record_charges"]
    np.savez(restart, **(old | {"version": 2, "identity": json.dumps(identity)}))
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        file.attrs["version"] = 2
    with pytest.raises(SimulationError, match="was run with record_charges=False"):
        run(tmp_path / "run.h5", potential=Flowing(WATER), steps=60, ensemble="nose_hoover", resume=True, record_charges=True)
    _, longer = run(tmp_path / "run.h5", steps=60, ensemble="nose_hoover", resume=True)
    assert_same(longer, whole)


def test_nve_conserves_energy_momentum_and_angular_momentum(tmp_path):
    summary, trajectory = run(
        tmp_path / "run.h5", replicas=4, steps=4000, record_every=10, equilibration_steps=400, time_step_fs=0.25
    )
    total = total_energy(trajectory)
    wobble = total.std(axis=0) / trajectory.energy.std(axis=0)
    assert wobble.max() < 0.01
    assert abs(summary.drift_meV_per_atom_per_ps) < 1e-2
    mass = torch.as_tensor(trajectory.mass)
    for frame in (0, -1):
        position, velocity = torch.as_tensor(trajectory.position[frame]), torch.as_tensor(trajectory.velocity[frame])
        scale = (mass[:, None] * velocity.abs()).sum()
        assert momentum(velocity, mass).abs().max() < 1e-11 * scale
        assert angular_momentum(position, velocity, mass).abs().max() < 1e-11 * scale


def test_energy_error_is_of_second_order(tmp_path):
    wobbles = []
    for index, dt in enumerate((0.4, 0.2, 0.1)):
        _, trajectory = run(tmp_path / f"{index}.h5", time_step_fs=dt, steps=round(40 / dt), record_every=round(0.4 / dt))
        wobbles.append(np.abs(total_energy(trajectory) - total_energy(trajectory)[0]).max())
    assert np.array(wobbles[:-1]) / np.array(wobbles[1:]) == pytest.approx([4.0, 4.0], rel=0.05)


def test_drift_is_the_leak_of_the_potential(tmp_path):
    """A leak of a hartree per step is a / dt per time; a unit or a factor of the atoms that is wrong would show."""
    leak = 1e-6
    summary, _ = run(
        tmp_path / "run.h5", potential=Leaking(WATER, leak=leak), steps=400, record_every=4, replicas=2, temperature=1e-9
    )
    expected = leak * MEV_PER_HARTREE / (0.5 / FS_PER_AU * PS_PER_AU) / 3
    assert summary.drift_meV_per_atom_per_ps == pytest.approx(expected, rel=1e-9)


def test_langevin_reaches_equipartition(tmp_path):
    """Kinetic and configurational: every atom of a trap has k <x^2> = kT; the error bars come from the replicas."""
    atoms = Molecule(np.array([8, 1, 6]), np.array([[0.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0]]))
    replicas, k, kelvin = 800, 0.03, 400.0
    summary, trajectory = run(
        tmp_path / "run.h5", potential=Trap(k), molecule=atoms, ensemble="langevin", temperature=kelvin, replicas=replicas,
        friction_per_fs=0.1, equilibration_steps=300, steps=900, record_every=30, time_step_fs=0.75,
    )  # fmt: skip
    thermal = BOLTZMANN * kelvin
    omega_dt = np.sqrt(k / trajectory.mass) * trajectory.integration_step
    for atom in range(3):
        configurational = k * (trajectory.position[:, :, atom] ** 2).mean(axis=(0, 2)) / thermal
        kinetic = trajectory.mass[atom] * (trajectory.velocity[:, :, atom] ** 2).mean(axis=(0, 2)) / thermal
        for sample, expected in ((configurational, 1.0), (kinetic, 1.0 - 0.25 * omega_dt[atom] ** 2)):
            error = sample.std() / sqrt(replicas)
            assert error < 0.015
            assert abs(sample.mean() - expected) < 4.0 * error
    assert summary.mean_temperature == pytest.approx(kelvin, rel=0.015)
    assert summary.drift_meV_per_atom_per_ps is None


def test_nve_after_equilibration_keeps_the_temperature(tmp_path):
    """3N - 6 degrees of freedom: at equal partition between K and V of nearly harmonic springs."""
    summary, trajectory = run(
        tmp_path / "run.h5", replicas=400, equilibration_steps=600, steps=300, record_every=10, friction_per_fs=0.05
    )
    kinetic = 0.5 * np.einsum("n,srnx->sr", trajectory.mass, trajectory.velocity**2)
    per_replica = 2.0 * kinetic.mean(axis=0) / (3 * BOLTZMANN)
    error = per_replica.std() / sqrt(400)
    assert error < 10.0
    assert abs(per_replica.mean() - 300.0) < 4.0 * error
    assert summary.mean_temperature == pytest.approx(per_replica.mean(), rel=1e-12)


@pytest.mark.parametrize("numbers", [[1], [1, 17], [6, 8, 8]])
def test_atoms_and_linear_molecules(tmp_path, numbers):
    molecule = Molecule(np.array(numbers), np.array([[0.0, 0, 0], [0, 0, 2.3], [0, 0, -2.3]])[: len(numbers)])
    springs = Springs(molecule, charges=(0.2, -0.1, -0.1)[: len(numbers)])
    summary, trajectory = run(tmp_path / "run.h5", potential=springs, molecule=molecule, replicas=300, steps=2)
    expected = 0.0 if len(numbers) == 1 else 300.0
    freedom = max(3 * len(numbers) - 5, 1)
    assert abs(summary.mean_temperature - expected) < 4.0 * 300.0 * sqrt(2.0 / freedom / 300)
    assert np.isfinite(trajectory.velocity).all()


def test_geometries_are_dealt_out_to_the_replicas(tmp_path):
    other = WATER.moved(WATER.position * 1.02)
    _, trajectory = run(tmp_path / "run.h5", molecule=[WATER, other], replicas=3, steps=1)
    for replica, molecule in enumerate((WATER, other, WATER)):
        assert np.array_equal(trajectory.position[0, replica], molecule.position)


def test_the_seed_decides_everything(tmp_path):
    torch.manual_seed(1)
    options = {"ensemble": "langevin", "replicas": 2}
    _, first = run(tmp_path / "1.h5", seed=4, **options)
    torch.manual_seed(2)
    _, second = run(tmp_path / "2.h5", seed=4, **options)
    _, third = run(tmp_path / "3.h5", seed=5, **options)
    assert_same(first, second)
    assert not np.allclose(first.velocity, third.velocity)


def test_summary_is_written_beside_and_into_the_trajectory(tmp_path):
    summary, trajectory = run(tmp_path / "run.h5", replicas=2, equilibration_steps=10)
    assert json.loads((tmp_path / "run.json").read_text()) == vars(summary)
    with h5py.File(tmp_path / "run.h5") as file:
        assert {name: file.attrs[name] for name in vars(summary)} == vars(summary)
    kinetic = 0.5 * np.einsum("n,srnx->sr", trajectory.mass, trajectory.velocity**2)
    assert summary.mean_temperature == pytest.approx(2.0 * kinetic.mean() / (3 * BOLTZMANN), rel=1e-12)
    slope = np.polyfit(np.arange(101) * 0.5e-3, total_energy(trajectory).mean(axis=1) * MEV_PER_HARTREE / 3, 1)[0]
    assert summary.drift_meV_per_atom_per_ps == pytest.approx(slope, rel=1e-6)
    assert summary.steps == 100
    assert summary.ms_per_step == pytest.approx(1e3 * summary.wall_s / 110)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_step_fs": 0.0}, "time_step_fs is 0.0; expected femtoseconds above 0"),
        ({"time_step_fs": -0.5}, "time_step_fs is -0.5"),
        ({"time_step_fs": "half"}, "time_step_fs is 'half'"),
        ({"temperature": -1.0}, "temperature is -1.0; expected kelvin above 0"),
        ({"temperature": 0.0}, "temperature is 0.0; expected kelvin above 0"),
        ({"temperature": 0, "ensemble": "langevin"}, "temperature is 0; expected kelvin above 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"friction_per_fs": 0.0, "ensemble": "langevin"}, "friction_per_fs is 0.0"),
        ({"replicas": 0}, "replicas is 0; expected a whole number of at least 1"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 10.5}, "steps is 10.5"),
        ({"record_every": 0}, "record_every is 0"),
        ({"ensemble": "npt"}, "ensemble is 'npt'; expected one of nve, langevin, nose_hoover"),
        ({"thermostat_time_fs": 0.0}, "thermostat_time_fs is 0.0; expected femtoseconds above 0"),
        ({"thermostat_time_fs": 4.9, "ensemble": "nose_hoover"}, "thermostat_time_fs is 4.9; expected at least ten time steps"),
        ({"chain_length": 1}, "chain_length is 1; expected a whole number of at least 2"),
        ({"max_temperature": 100.0}, "max_temperature is 100.0"),
    ],
)
def test_settings_without_sense_are_refused(changes, message):
    with pytest.raises(SimulationError, match=message):
        settings(**changes)


def test_overlapping_atoms_are_refused():
    with pytest.raises(StructureError, match="apart"):
        Molecule(np.array([1, 1]), np.array([[0.0, 0, 0], [0.0, 0, 0.1]]))


def test_a_bad_start_leaves_no_file(tmp_path):
    with pytest.raises(SimulationError, match="step 0, replica 1"):
        run(tmp_path / "run.h5", potential=Failing(WATER, what="energy", replica=1, at_call=1), replicas=2)
    assert not list(tmp_path.iterdir())


def test_a_file_is_never_overwritten_unasked(tmp_path):
    path = tmp_path / "run.h5"
    _, first = run(path, seed=1)
    with pytest.raises(SimulationError, match="exists; expected a new file; set resume=true"):
        run(path, seed=2)
    with pytest.raises(SimulationError, match="both set"):
        run(path, seed=2, resume=True, overwrite=True)
    assert_same(read_trajectory(path), first)
    _, second = run(path, seed=2, overwrite=True)
    assert second.seed == 2
    with pytest.raises(SimulationError, match=r"expected a name that ends in \.h5"):
        run(tmp_path / "run.json")


RUN = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from simulation_potentials import WATER, Suicidal, settings
from densnet.simulation.engine import simulate
for at_call in json.loads(sys.argv[3]):
    child = os.fork()
    if not child:
        path = f"{sys.argv[2]}/{at_call}.h5"
        simulate(Suicidal(WATER, at_call=at_call), WATER, settings(**json.loads(sys.argv[4])), path, progress=False)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
"""


@pytest.mark.parametrize(("ensemble", "replicas"), [("nve", 2), ("langevin", 1), ("langevin", 3), ("nose_hoover", 2)])
def test_killed_and_resumed_is_the_same_run_bit_for_bit(tmp_path, request, ensemble, replicas):
    """SIGKILL in equilibration (33), at its end (61, 62), shortly after it (100), inside blocks of production and at the end."""
    options = {"ensemble": ensemble, "replicas": replicas, "equilibration_steps": 60, "steps": 130, "record_every": 2}
    options |= {"flush_every": 7, "record_charges": True}
    calls = [33, 61, 62, 100, 147, 160, 190]
    _, whole = run(tmp_path / "whole.h5", potential=Flowing(WATER), **options)
    assert whole.atomic_charge is not None
    command = [sys.executable, "-c", RUN, str(request.path.parent), str(tmp_path), json.dumps(calls), json.dumps(options)]
    subprocess.run(command, check=True)
    for at_call in calls:
        path = tmp_path / f"{at_call}.h5"
        if at_call > 100:
            partial = read_trajectory(path)
            assert 0 < len(partial.energy) < len(whole.energy)
            assert_same(partial, whole, frames=len(partial.energy))
        # All that the restart needs is on disk: fewer calls than a whole run.
        springs = Flowing(WATER)
        _, resumed = run(path, potential=springs, resume=True, **options)
        assert 190 - at_call <= springs.calls < 190 - at_call + 20
        assert_same(resumed, whole)
        assert len(resumed.energy) == 66


def test_a_finished_run_can_be_made_longer(tmp_path):
    options = {"ensemble": "langevin", "equilibration_steps": 10, "record_every": 3}
    _, whole = run(tmp_path / "whole.h5", steps=200, **options)
    run(tmp_path / "run.h5", steps=100, **options)
    summary, longer = run(tmp_path / "run.h5", steps=200, resume=True, **options)
    assert_same(longer, whole)
    assert len(longer.energy) == 67
    again, same = run(tmp_path / "run.h5", steps=200, resume=True, **options)
    assert_same(same, whole)
    assert again.mean_temperature == summary.mean_temperature
    with pytest.raises(SimulationError, match="has run 200 steps; expected at most steps=150"):
        run(tmp_path / "run.h5", steps=150, resume=True, **options)


def test_resume_starts_a_run_that_never_began(tmp_path):
    _, first = run(tmp_path / "1.h5", resume=True)
    assert_same(first, run(tmp_path / "2.h5")[1])


@pytest.mark.parametrize("changed", [{"time_step_fs": 0.25}, {"seed": 2}, {"temperature": 301.0}, {"replicas": 2}])
def test_resume_with_other_settings_is_refused(tmp_path, changed):
    _, before = run(tmp_path / "run.h5")
    name = next(iter(changed))
    with pytest.raises(SimulationError, match=f"was run with {name}="):
        run(tmp_path / "run.h5", resume=True, steps=200, **changed)
    with pytest.raises(SimulationError, match="model_hash=springs; found model_hash=other"):
        run(tmp_path / "run.h5", potential=Springs(WATER, hash="other"), resume=True, steps=200)
    assert_same(read_trajectory(tmp_path / "run.h5"), before)


def test_resume_without_one_of_its_files_is_refused(tmp_path):
    _, before = run(tmp_path / "run.h5")
    restart = (tmp_path / "run.restart.npz").read_bytes()
    (tmp_path / "run.restart.npz").unlink()
    with pytest.raises(DataError, match="does not exist; expected the restart file"):
        run(tmp_path / "run.h5", resume=True)
    assert_same(read_trajectory(tmp_path / "run.h5"), before)
    (tmp_path / "run.restart.npz").write_bytes(restart)
    (tmp_path / "run.h5").unlink()
    with pytest.raises(DataError, match="is gone"):
        run(tmp_path / "run.h5", resume=True)


def test_masses_are_the_standard_atomic_weights(tmp_path):
    _, trajectory = run(tmp_path / "run.h5", steps=1)
    assert np.array_equal(trajectory.mass, atomic_masses[WATER.number] * ELECTRON_MASS_PER_DALTON)


def test_a_density_network_moves_the_atoms(tmp_path, model, water):
    """NVE on a real, untrained model in float64: its forces belong to its energy, and the file holds its dipoles."""
    options = {"potential": model, "molecule": water, "replicas": 2, "max_temperature": 1e6, "max_energy_jump_ev": 1e3}
    wobbles = []
    for index, (dt, steps) in enumerate(((0.02, 10), (0.01, 20))):
        _, trajectory = run(tmp_path / f"{index}.h5", time_step_fs=dt, steps=steps, **options)
        wobbles.append(np.abs(total_energy(trajectory) - total_energy(trajectory)[0]).max())
    assert wobbles[0] / wobbles[1] == pytest.approx(4.0, rel=0.2)
    found = model.predict(Molecules.of([water.moved(trajectory.position[20, 1])]))
    np.testing.assert_allclose(trajectory.dipole[20, 1], found.dipole[0], rtol=0, atol=1e-10)
    assert np.abs(trajectory.dipole[20, 1] - trajectory.dipole[0, 1]).max() > 1e-6


def test_the_summary_of_a_replaced_run_is_gone_before_the_new_one_ends(tmp_path):
    """A step list or a person must not take it for that of the unfinished trajectory beside it."""
    path = tmp_path / "run.h5"
    run(path)
    assert path.with_suffix(".json").exists()

    class Interrupted(Springs):
        def predict(self, molecules, forces=True):
            if self.calls == 5:
                raise KeyboardInterrupt
            return super().predict(molecules, forces)

    with pytest.raises(KeyboardInterrupt):
        run(path, Interrupted(WATER), overwrite=True)
    assert path.exists()
    assert not path.with_suffix(".json").exists()


def test_a_compiled_run_continues_compiled_only(tmp_path, model, monkeypatch):
    """A compiled graph rounds otherwise, so the continued run would not be the uninterrupted one."""
    monkeypatch.setattr(compiled, "compile_whole", lambda function, frozen=False: function)
    path, water = tmp_path / "run.h5", Molecule(np.array([8, 1, 1]), WATER.position)
    run(path, compiled.CompiledModel(model), water, steps=2, max_energy_jump_ev=1e9, max_temperature=1e12)
    with pytest.raises(SimulationError, match="was run with compile=inference; found compile=off"):
        run(path, model, water, resume=True, steps=4, max_energy_jump_ev=1e9, max_temperature=1e12)


def test_geometries_that_are_not_used_are_said(tmp_path, caplog):
    run(tmp_path / "run.h5", molecule=[WATER, WATER.moved(WATER.position * 1.01), WATER], replicas=2, steps=1)
    assert "the last 1 of 3 geometries are not used" in caplog.text
