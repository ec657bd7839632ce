"""Isotopes, animations, the Molden file, tables and figures of a harmonic analysis."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analytic_models import Analytic, as_model, valence_water, water_geometry
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read
from ase.vibrations import Infrared
from conftest import random_rotation
from pyscf import gto, hessian, scf
from pyscf.data.elements import COMMON_ISOTOPE_MASSES
from pyscf.hessian import thermo

from densnet.data.harmonic import HarmonicData
from densnet.data.isotopes import MASS_DALTON, Masses, isotope_mass, with_masses
from densnet.errors import ConfigError, SpectrumError
from densnet.model.derivatives import model_harmonic
from densnet.spectra.animation import AnimationSettings, amplitude, displaced, turning_point, write_animation, write_molden
from densnet.spectra.compare import LineShape
from densnet.spectra.harmonic import NormalModes, normal_modes, normal_modes_of
from densnet.spectra.harmonic_figure import EPSILON_PER_KM_MOL, harmonic_figure
from densnet.spectra.harmonic_report import table, write_harmonic_report
from densnet.spectra.harmonic_summary import Analysis, ReportSettings, rmsd, stationary_point, summarise
from densnet.spectra.plot import model_sticks
from densnet.structures import Molecules
from densnet.units import (
    ANGSTROM_PER_BOHR,
    BOLTZMANN,
    CM1_PER_AU,
    ELECTRON_MASS_PER_DALTON,
    EV_PER_HARTREE,
)

CHARGES = [-0.7, 0.35, 0.35]


@pytest.fixture(scope="module")
def water_data() -> HarmonicData:
    return model_harmonic(as_model(Analytic(valence_water, CHARGES)), water_geometry())


@pytest.fixture(scope="module")
def modes(water_data: HarmonicData) -> NormalModes:
    return normal_modes_of(water_data)


def analysis(modes: NormalModes, label: str = "Model") -> Analysis:
    return Analysis(label, modes, -76.4, "made by a formula")


# ---- the same calculator through ASE -------------------------------------------------------------------------------------


class OfAse(Calculator):
    """The valence force field with its dipole, in ASE's units."""

    implemented_properties = ["energy", "forces", "dipole"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.model = Analytic(valence_water, CHARGES)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        molecule = water_geometry().moved(self.atoms.positions / ANGSTROM_PER_BOHR)
        found = self.model.predict(Molecules.of([molecule]))
        assert found.force is not None
        self.results = {
            "energy": float(found.energy) * EV_PER_HARTREE,
            "forces": found.force.numpy() * EV_PER_HARTREE / ANGSTROM_PER_BOHR,
            "dipole": found.dipole[0].numpy() * ANGSTROM_PER_BOHR,
        }


def test_against_infrared_of_ase(water_data: HarmonicData, modes: NormalModes, tmp_path: Path) -> None:
    atoms = Atoms(water_data.number, water_data.position * ANGSTROM_PER_BOHR, calculator=OfAse())
    theirs = Infrared(atoms, name=str(tmp_path / "ir"), delta=0.002, nfree=4)
    theirs.run()
    assert modes.frequency_cm1 == pytest.approx(theirs.get_frequencies().real[6:], rel=2e-5)
    assert modes.intensity_km_mol == pytest.approx(theirs.intensities[6:] * 42.255, rel=2e-4)  # from (D/angstrom)^2/amu


@pytest.mark.parametrize(
    ("atoms", "rigid"),
    [
        ("O 0 0 0; C 0 0 1.1879; O 0 0 2.3758", 5),
        ("H 0 0 0; C 0 0 1.0699; N 0 0 2.2225", 5),
        ("O 0 0 0; H 0 0.76 0.59; H 0 -0.76 0.59", 6),
    ],
)
def test_quantum_chemical_hessians_against_pyscf(atoms: str, rigid: int) -> None:
    """CO2, HCN and water with Hartree-Fock: frequencies, reduced masses and force constants of PySCF's own analysis."""
    mol = gto.M(atom=atoms, basis="sto-3g", verbose=0)
    field = scf.RHF(mol).run(conv_tol=1e-12)
    second = hessian.RHF(field).kernel()
    theirs = thermo.harmonic_analysis(mol, second)
    n = mol.natm
    flat = second.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    mass = mol.atom_mass_list(isotope_avg=True) * ELECTRON_MASS_PER_DALTON
    ours = normal_modes(mol.atom_charges(), mass, mol.atom_coords(), flat, np.zeros((3 * n, 3)))
    assert ours.n_rigid == rigid
    reference = np.asarray(theirs["freq_wavenumber"])
    reference = np.sort(np.where(reference.imag != 0, -reference.imag, reference.real))
    assert ours.frequency_cm1 == pytest.approx(reference, rel=1e-5, abs=1e-3)
    if rigid == 6:
        assert ours.reduced_mass / ELECTRON_MASS_PER_DALTON == pytest.approx(theirs["reduced_mass"], rel=1e-4)
    else:
        assert ours.frequency_cm1[0] == pytest.approx(ours.frequency_cm1[1], abs=0.01)  # the bend comes twice


# ---- isotopes -----------------------------------------------------------------------------------------------------------


def product(modes: NormalModes) -> float:
    return float(np.log(modes.frequency_cm1).sum())


def inertia(mass: np.ndarray, position: np.ndarray) -> np.ndarray:
    centred = position - mass @ position / mass.sum()
    return (centred**2 * mass[:, None]).sum() * np.eye(3) - np.einsum("a,ai,aj->ij", mass, centred, centred)


@pytest.mark.parametrize("isotopes", [{1: "D"}, {"H": "H-2"}, {"O": "18O", 2: "T"}, {0: 17.0}])
def test_isotopes_obey_the_product_rule(
    water_data: HarmonicData, modes: NormalModes, isotopes: dict[int | str, str | float]
) -> None:
    """Teller-Redlich (Wilson, Decius, Cross, section 8-5): frequencies follow from masses and moments of inertia alone."""
    heavy = normal_modes_of(changed := with_masses(water_data, isotopes=isotopes))
    old, new = water_data.mass, changed.mass
    expected = 0.5 * 3 * np.log(old / new).sum() + 1.5 * np.log(new.sum() / old.sum())
    expected += 0.5 * np.log(np.linalg.det(inertia(new, water_data.position)) / np.linalg.det(inertia(old, water_data.position)))
    assert product(heavy) - product(modes) == pytest.approx(expected, abs=1e-8)
    assert abs(expected) > 0.002
    assert "masses changed" in changed.provenance
    # A linear molecule has two moments.
    assert with_masses(water_data) is water_data


def test_deuterated_diatomic_shifts_as_the_root_of_the_reduced_mass(water_data: HarmonicData) -> None:
    k = 0.3 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    hessian = np.zeros((6, 6))
    hessian[2::3, 2::3] = k
    data = replace(
        water_data, number=np.array([17, 1]), mass=Masses.MOST_COMMON.of(np.array([17, 1])),
        position=np.array([[0, 0, 0], [0, 0, 2.4]], dtype=float), hessian=hessian, dipole_derivative=np.zeros((6, 3)),
    )  # fmt: skip
    light, heavy = (normal_modes_of(x).frequency_cm1[0] for x in (data, with_masses(data, isotopes={"H": "D", "Cl": "37Cl"})))
    reduced = [a * b / (a + b) for a, b in ((34.968852694, 1.007825032), (36.965902573, 2.014101778))]
    assert heavy / light == pytest.approx(np.sqrt(reduced[0] / reduced[1]), rel=1e-7)
    assert normal_modes_of(data).reduced_mass[0] == pytest.approx(
        # Gaussian's convention: displacement normalised over both atoms, not the distance
        data.mass[0] * data.mass[1] * data.mass.sum() / (data.mass**2).sum(), rel=1e-9
    )  # fmt: skip
    mu = data.mass.prod() / data.mass.sum()
    assert normal_modes_of(data).frequency_cm1[0] == pytest.approx(np.sqrt(0.3 / mu) * CM1_PER_AU, rel=1e-9)


def test_masses_of_isotopes_against_pyscf() -> None:
    """PySCF's table of the most common ones; heavier isotopes weigh a neutron (less its binding) more each."""
    from ase.data import atomic_numbers

    for name, mass in MASS_DALTON.items():
        symbol, nucleons = name.split("-")
        assert mass == pytest.approx(float(nucleons), abs=0.11)
        if round(COMMON_ISOTOPE_MASSES[atomic_numbers[symbol]]) == int(nucleons):
            assert mass == pytest.approx(COMMON_ISOTOPE_MASSES[atomic_numbers[symbol]], abs=1e-5)
    assert isotope_mass("2H", 1) == isotope_mass("d", 1) == isotope_mass("h-2", 1) == MASS_DALTON["H-2"]


@pytest.mark.parametrize(
    ("isotopes", "words"),
    [
        ({3: "D"}, "isotopes name atom 3; expected 0..2"),
        ({"C": "13C"}, "element C, which the molecule has not; expected one of H, O"),
        ({0: "D"}, "isotope D of O is unknown; expected O-16, O-17, O-18"),
        ({1: "H-9"}, "isotope H-9 of H is unknown"),
        ({1: 40.0}, "the mass of H is 40 dalton"),
    ],
)
def test_isotopes_that_are_not_there(water_data: HarmonicData, isotopes: dict[int | str, str | float], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        with_masses(water_data, isotopes=isotopes)
    assert "\n" not in str(error.value)


# ---- animations and Molden ----------------------------------------------------------------------------------------------


def test_amplitude_is_the_turning_point() -> None:
    """Against the thermal average over the levels of the oscillator, summed level by level."""
    for frequency, temperature in ((200.0, 0.0), (200.0, 298.15), (3000.0, 298.15), (50.0, 1000.0)):
        omega = frequency / CM1_PER_AU
        level = np.arange(2000)
        weight = np.exp(-level * omega / (BOLTZMANN * temperature)) if temperature else (level == 0).astype(float)
        energy = (weight * (level + 0.5)).sum() / weight.sum() * omega
        assert turning_point(frequency, temperature) == pytest.approx(np.sqrt(2 * energy) / omega, rel=1e-9)


def test_animations_move_as_the_mode_does(modes: NormalModes, tmp_path: Path) -> None:
    settings = AnimationSettings(frames=12, temperature=0.0)
    for k in range(3):
        write_animation(tmp_path / "mode.xyz", modes, k, settings)
        frames = read(tmp_path / "mode.xyz", ":", format="extxyz")
        assert isinstance(frames, list)
        assert len(frames) == 12
        assert frames[0].positions == pytest.approx(modes.position * ANGSTROM_PER_BOHR, abs=1e-7)
        moves = np.array([f.positions - frames[0].positions for f in frames])
        # No shift of the centre of mass, no rotation; a quarter of a period is the turning point.
        assert np.einsum("a,fai->fi", modes.mass, moves) / modes.mass.sum() == pytest.approx(np.zeros((12, 3)), abs=1e-7)
        top = np.linalg.norm(moves[3], axis=1).max()
        assert top == pytest.approx(frames[0].info["amplitude_angstrom"], abs=1e-4)
        assert moves[9] == pytest.approx(-moves[3], abs=1e-7)
        # Kinetic energy at the centre equals the zero-point energy: half the sum of m v^2 with v = omega times the amplitude.
        omega = modes.frequency_cm1[k] / CM1_PER_AU
        kinetic = 0.5 * (modes.mass[:, None] * (moves[3] / ANGSTROM_PER_BOHR * omega) ** 2).sum()
        assert kinetic == pytest.approx(0.5 * omega, rel=1e-4)
        assert frames[0].info["frequency_cm1"] == pytest.approx(modes.frequency_cm1[k], abs=1e-3)
        assert frames[0].info["amplitude_is"] == "turning point at 0 K"
    # The antisymmetric stretch lengthens one bond and shortens the other, the symmetric one does not.
    stretched = displaced(modes, 2, settings)[3]
    bond = [np.linalg.norm(stretched[i] - stretched[0]) - np.linalg.norm(modes.position[i] - modes.position[0]) for i in (1, 2)]
    assert bond[0] == pytest.approx(-bond[1], rel=0.1)
    assert abs(bond[0]) > 0.05


def test_amplitudes_are_capped_and_say_so(modes: NormalModes, tmp_path: Path) -> None:
    settings = AnimationSettings(largest_angstrom=0.03)
    write_animation(tmp_path / "a.xyz", modes, 0, settings)
    first = read(tmp_path / "a.xyz", 0, format="extxyz")
    assert isinstance(first, Atoms)
    assert first.info["amplitude_is"] == "largest_angstrom=0.03"
    assert amplitude(modes, 0, settings).angstrom == pytest.approx(0.03)
    imaginary = replace(modes, frequency_cm1=modes.frequency_cm1 * [-1, 1, 1])
    found = amplitude(imaginary, 0, AnimationSettings())
    assert (found.angstrom, found.capped) == (pytest.approx(0.5), True)
    with pytest.raises(ConfigError, match="frames=2"):
        AnimationSettings(frames=2)


def read_molden(path: Path) -> dict[str, list[str]]:
    """Sections of a Molden file as its description has them: a name in brackets, lines until the next."""
    sections: dict[str, list[str]] = {}
    lines = path.read_text().splitlines()
    assert lines[0] == "[Molden Format]"
    for line in lines[1:]:
        if line.startswith("["):
            name, _, unit = line[1:].partition("]")
            sections[name] = current = []
            if name == "Atoms":
                assert unit.strip() == "AU"
        else:
            current.append(line)
    return sections


def test_molden_file_is_read_back(modes: NormalModes, tmp_path: Path) -> None:
    write_molden(tmp_path / "m.molden", modes, "water,\nmade by a formula")
    found = read_molden(tmp_path / "m.molden")
    assert found["Title"] == ["water, made by a formula"]
    assert [float(x) for x in found["FREQ"]] == pytest.approx(modes.frequency_cm1, abs=1e-4)
    assert [float(x) for x in found["INT"]] == pytest.approx(modes.intensity_km_mol, abs=1e-6)
    atoms = [line.split() for line in found["FR-COORD"]]
    assert [a[0] for a in atoms] == ["O", "H", "H"]
    assert np.array([a[1:] for a in atoms], dtype=float) == pytest.approx(modes.position, abs=1e-9)
    again = [line.split() for line in found["Atoms"]]
    assert [(a[0], int(a[1]), int(a[2])) for a in again] == [("O", 1, 8), ("H", 2, 1), ("H", 3, 1)]
    assert np.array([a[3:] for a in again], dtype=float) == pytest.approx(modes.position, abs=1e-9)
    rows = found["FR-NORM-COORD"]
    assert [int(rows[4 * k].split()[1]) for k in range(3)] == [1, 2, 3]
    read_back = np.array([[line.split() for line in rows[4 * k + 1 : 4 * k + 4]] for k in range(3)], dtype=float)
    assert read_back == pytest.approx(modes.displacement, abs=1e-8)
    assert (read_back**2).sum(axis=(1, 2)) == pytest.approx(np.ones(3), abs=1e-7)
    # The displacements are dx, not mass-weighted: M^1/2 dx, normalised, diagonalises the Hessian.
    weighted = (read_back * np.sqrt(modes.mass)[None, :, None]).reshape(3, 9)
    weighted /= np.linalg.norm(weighted, axis=1)[:, None]
    assert np.abs(weighted @ modes.vector) == pytest.approx(np.eye(3), abs=1e-7)


# ---- report -------------------------------------------------------------------------------------------------------------


def test_files_of_the_report(modes: NormalModes, tmp_path: Path) -> None:
    other = replace(
        modes, frequency_cm1=modes.frequency_cm1 + np.array([2.0, -3.0, 7.0]), intensity_km_mol=modes.intensity_km_mol * 0.5
    )
    (tmp_path / "mode_04.xyz").write_text("of a larger molecule")
    summary = write_harmonic_report(tmp_path, analysis(modes), analysis(other, "DFT"), ReportSettings(title="Water"))
    assert {p.name for p in tmp_path.iterdir()} == {
        "modes.csv", "modes.json", "modes.molden", "reference.molden", "harmonic.png", "harmonic.svg",
        "mode_01.xyz", "mode_02.xyz", "mode_03.xyz",
    }  # fmt: skip
    content = json.loads((tmp_path / "modes.json").read_text())
    first = content["analyses"][0]
    assert [m["frequency_cm1"] for m in first["modes"]] == pytest.approx(modes.frequency_cm1)
    assert [m["reduced_mass_dalton"] for m in first["modes"]] == pytest.approx(modes.reduced_mass / ELECTRON_MASS_PER_DALTON)
    assert first["thermochemistry"]["symmetry_number"] == 2
    assert first["stationary_point"] == "minimum: all frequencies are real"
    assert content["settings"]["thermochemistry"]["temperature"] == 298.15
    assert [p["deviation_cm1"] for p in content["comparison"]["pairs"]] == pytest.approx([-2.0, 3.0, -7.0])
    assert content["comparison"]["max_intensity_deviation_relative"] == pytest.approx(1.0)
    rows = [line for line in (tmp_path / "modes.csv").read_text().splitlines() if not line.startswith("#")]
    found = list(csv.DictReader(rows))
    assert [float(r["deviation_cm1"]) for r in found] == pytest.approx([-2.0, 3.0, -7.0], abs=1e-3)
    assert found[0]["atoms"].startswith("H")
    printed = table(summary)
    assert f"{modes.frequency_cm1[0]:.1f}" in printed
    assert "mean deviation 4.0, largest 7.0 cm^-1" in printed
    assert "symmetry number 2 (rotations of the geometry)" in printed


def test_two_geometries_with_different_rigid_motions_are_paired_by_order(modes: NormalModes) -> None:
    """A straight and a bent molecule: the mode without a partner has an empty row."""
    straight = normal_modes(
        modes.number, modes.mass, water_geometry(np.pi).position, np.diag([0.0, 0.1, 0.2] * 3), np.zeros((9, 3))
    )
    assert straight.frequency_cm1.size == 4
    with pytest.raises(SpectrumError, match="same conformer"):
        summarise(analysis(straight), analysis(modes), ReportSettings())


def test_saddle_points_are_reported_in_words(modes: NormalModes) -> None:
    saddle = replace(modes, frequency_cm1=np.array([-231.4, 1500.0, 3000.0]))
    words = stationary_point(saddle)
    assert words.startswith("saddle point of order 1, not a minimum: mode 1 at 231.4i cm^-1 moves H")
    printed = table(summarise(analysis(saddle), None, ReportSettings()))
    assert "231.4i" in printed
    assert "left out: 231.4i cm^-1" in printed


def test_analyses_that_cannot_be_compared(water_data: HarmonicData, modes: NormalModes) -> None:
    turned = replace(modes, position=modes.position @ random_rotation(3).T + 4.0)
    assert rmsd(turned.position, modes.position) < 1e-7
    exchanged = replace(modes, number=modes.number[[1, 0, 2]])
    deuterated = normal_modes_of(with_masses(water_data, isotopes={1: "D"}))
    bent = replace(modes, position=water_geometry(0.9).position)
    for other, words in (
        (exchanged, "Model of OHH and DFT of HOH; expected the same molecule in the same atom order"),
        (deuterated, r"atom 1 weighs 1\.0080 in Model and 2\.0141 in DFT \(dalton\); expected the same isotopes"),
        (bent, "expected the same conformer; start from that conformer"),
    ):
        with pytest.raises(SpectrumError, match=words) as error:
            summarise(analysis(modes), analysis(other, "DFT"), ReportSettings())
        assert "\n" not in str(error.value)


def test_mirror_images_are_recognised() -> None:
    rng = np.random.default_rng(1)
    chiral = rng.normal(scale=2.0, size=(5, 3))
    vibrations = np.linalg.qr(rng.normal(size=(15, 9)))[0]
    hand = NormalModes(
        np.array([6, 1, 9, 17, 8]),
        np.ones(5) * 2e4,
        chiral,
        np.linspace(300, 3000, 9),
        np.ones(9),
        vibrations,
        np.zeros((9, 3)),
        6,
    )
    with pytest.raises(SpectrumError, match="mirror image"):
        summarise(analysis(hand), analysis(replace(hand, position=chiral * [-1, 1, 1]), "DFT"), ReportSettings())


def test_figure_is_absolute(modes: NormalModes) -> None:
    """The area below the curve, L/mol/cm times cm^-1, is that of the sticks: A = ln 10 / 100 times it, km/mol."""
    figure = harmonic_figure([model_sticks(modes)], 10.0, LineShape.GAUSSIAN)
    x, y = figure.axes[0].lines[0].get_data()
    assert np.trapezoid(y, x) * np.log(10.0) / 100.0 == pytest.approx(modes.intensity_km_mol.sum(), rel=1e-3)
    # In SI: N_A sigma = ln 10 epsilon; 1 km/mol = 1e3 m/mol; 1 L/mol/cm = 0.1 m^2/mol; 1 cm^-1 = 100 m^-1.
    assert pytest.approx(1e3 / np.log(10.0) / 0.1 / 100.0) == EPSILON_PER_KM_MOL
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert f"{modes.frequency_cm1[np.argmax(modes.intensity_km_mol)]:.0f}" in labels
    with pytest.raises(ConfigError, match="line width"):
        ReportSettings(fwhm_cm1=0.0)
    with pytest.raises(ConfigError, match="lorentzian"):
        ReportSettings(shape="voigt")
