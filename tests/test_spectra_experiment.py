"""Measured spectra from JCAMP-DX and tables: known curves come back from every form, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densnet.errors import ConfigError, DensnetError, SpectrumError
from densnet.spectra.experiment import ExperimentalSpectrum, read_experiment
from densnet.spectra.infrared import KM_MOL_PER_EPSILON

WAVENUMBER = np.linspace(800.0, 2400.0, 801)
LITRES_PER_MOL_298 = 24.465  # ideal gas at 298.15 K and one atmosphere, from tables
LITRES_PER_MOL_273 = 22.41397  # at 273.15 K


def band(wavenumber: np.ndarray) -> np.ndarray:
    """Absorbance of two bands; positive everywhere."""
    first, second = (wavenumber - 1100.0) / 30.0, (wavenumber - 1900.0) / 60.0
    return 0.7 * np.exp(-0.5 * first**2) + 0.4 * np.exp(-0.5 * second**2) + 0.01


def jcamp(x: np.ndarray, y: np.ndarray, form: str = "plain", per_line: int = 7, **header: object) -> str:
    """JCAMP-DX text of y over evenly spaced x. Labels in `header` replace or (None) remove those that are right."""
    y_factor = float(header.get("YFACTOR", 1e-7))  # type: ignore[arg-type]
    x_factor = float(header.get("XFACTOR", 1.0))  # type: ignore[arg-type]
    stored = np.rint(y / y_factor).astype(int)
    labels: dict[str, object] = {
        "TITLE": "synthetic", "JCAMP-DX": "4.24", "DATA TYPE": "INFRARED SPECTRUM", "XUNITS": "1/CM", "YUNITS": "ABSORBANCE",
        "XFACTOR": x_factor, "YFACTOR": y_factor, "FIRSTX": repr(float(x[0])), "LASTX": repr(float(x[-1])),
        "DELTAX": repr(float((x[-1] - x[0]) / (x.size - 1))), "FIRSTY": repr(float(y[0])), "MAXY": repr(float(y.max())),
        "MINY": repr(float(y.min())), "NPOINTS": x.size, **header, "XYDATA": header.get("XYDATA", "(X++(Y..Y))"),
    }  # fmt: skip
    lines = [f"##{label}={value}" for label, value in labels.items() if value is not None]
    if form == "difdup":
        return "\n".join([*lines, *difdup(x / x_factor, stored), "##END="]) + "\n"
    between = " " if form == "plain" else ""
    for start in range(0, x.size, per_line):
        values = between.join(f"{v}" if form == "plain" else f"{v:+d}" for v in stored[start : start + per_line])
        lines.append(f"{x[start] / x_factor:.6f}{between}{values}")
    return "\n".join([*lines, "##END="]) + "\n"


def difdup(x: np.ndarray, stored: np.ndarray, per_line: int = 12) -> list[str]:
    """Differences with duplicate suppression; every line starts with the last value of the one before, to be checked."""

    def coded(value: int, first: str) -> str:
        digits = str(abs(value))
        return first[int(digits[0]) + (9 if value < 0 else 0)] + digits[1:]

    lines = []
    for start in range(0, x.size - 1, per_line):
        part = stored[start : start + per_line + 1]
        text = f"{x[start]:.6f}" + coded(int(part[0]), "@ABCDEFGHIabcdefghi")
        codes = [coded(int(d), "%JKLMNOPQRjklmnopqr") for d in np.diff(part)]
        i = 0
        while i < len(codes):
            run = 1
            while i + run < len(codes) and codes[i + run] == codes[i] and run < 8:
                run += 1
            text += codes[i] + ("" if run == 1 else "STUVWXYZ"[run - 1])
            i += run
        lines.append(text)
    return lines


def written(folder: Path, text: str, name: str = "spectrum.jdx") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def check_band(found: ExperimentalSpectrum, tolerance: float = 1e-5) -> None:
    assert (np.diff(found.wavenumber_cm1) > 0.0).all()
    np.testing.assert_allclose(found.absorbance, band(found.wavenumber_cm1), atol=tolerance)
    assert found.wavenumber_cm1[0] == pytest.approx(800.0, abs=0.01)
    assert found.wavenumber_cm1[-1] == pytest.approx(2400.0, abs=0.01)


MICROMETRES = np.linspace(1e4 / 2400.0, 1e4 / 800.0, 801)
ABSORBANCE = band(WAVENUMBER)


@pytest.mark.parametrize("form", ["plain", "packed", "difdup"])
@pytest.mark.parametrize(
    ("x", "y", "header"),
    [
        (WAVENUMBER, ABSORBANCE, {}),
        (WAVENUMBER[::-1], ABSORBANCE[::-1], {"XFACTOR": 0.01}),
        (WAVENUMBER, 10.0**-ABSORBANCE, {"YUNITS": "TRANSMITTANCE"}),
        (WAVENUMBER, 100.0 * 10.0**-ABSORBANCE, {"YUNITS": "% TRANSMITTANCE", "YFACTOR": 1e-5}),
        (MICROMETRES, 10.0 ** -band(1e4 / MICROMETRES), {"XUNITS": "MICROMETERS", "YUNITS": "TRANSMITTANCE"}),
        (1e3 * MICROMETRES, band(1e4 / MICROMETRES), {"XUNITS": "NANOMETERS"}),
    ],
    ids=["plain", "falling", "transmittance", "percent", "micrometres", "nanometres"],
)
def test_a_known_curve_comes_back_from_every_jcamp_form(tmp_path: Path, x, y, header, form) -> None:
    found = read_experiment(written(tmp_path, jcamp(x, y, form, **header)))
    check_band(found)
    assert found.wavenumber_cm1.size == 801
    assert not found.absolute
    assert not found.saturated.any()
    assert found.title == "synthetic"


def test_bands_on_a_wavelength_axis_keep_their_area_over_wavenumber(tmp_path: Path) -> None:
    x, y = MICROMETRES, band(1e4 / MICROMETRES)
    found = read_experiment(written(tmp_path, jcamp(x, y, XUNITS="MICROMETERS")))
    exact = 0.7 * 30.0 * np.sqrt(2.0 * np.pi) + 0.01 * 300.0
    assert found.integrate(950.0, 1250.0) == pytest.approx(exact, rel=1e-3)


def test_labels_comments_and_blocks_that_the_package_stumbles_over(tmp_path: Path) -> None:
    text = jcamp(WAVENUMBER, ABSORBANCE, XYDATA="(X++(Y..Y)) $$ plain numbers", NPOINTS="801 $$ counted")
    text = (
        text.replace("##DATA TYPE", "##DATATYPE").replace("##XUNITS=1/CM", "##X_UNITS= 1/cm").replace("\n1", "\n$$ remark\n1", 1)
    )
    check_band(read_experiment(written(tmp_path, text)))
    link = (
        "##TITLE=pair\n##DATA TYPE=LINK\n##BLOCKS=2\n" + jcamp(WAVENUMBER, 2.0 * ABSORBANCE, TITLE="double") + text + "##END=\n"
    )
    path = written(tmp_path, link)
    with pytest.raises(SpectrumError, match=r"2 spectra \(1 double; 2 synthetic\)"):
        read_experiment(path)
    check_band(read_experiment(path, block=2))
    np.testing.assert_allclose(read_experiment(path, block=1).absorbance, 2.0 * ABSORBANCE, atol=1e-6)
    with pytest.raises(SpectrumError, match="choose 1 to 2"):
        read_experiment(path, block=3)


def test_a_known_absorptivity_comes_back_from_pressure_and_path(tmp_path: Path) -> None:
    epsilon = 100.0 * ABSORBANCE
    litres = LITRES_PER_MOL_298 * 760.0 / 30.0
    y = 10.0 ** -(epsilon * 5.0 / litres)
    state = {"STATE": "GAS (30 mmHg, N2 ADDED, TOTAL PRESSURE 600 mmHg)", "PATH LENGTH": "5 CM"}
    found = read_experiment(written(tmp_path, jcamp(WAVENUMBER, y, YUNITS="TRANSMITTANCE", **state)))
    assert found.absolute
    assert found.unit == "L/mol/cm"
    assert any("298.15 K assumed" in note for note in found.notes)
    np.testing.assert_allclose(found.absorbance, epsilon, rtol=5e-4)
    given = read_experiment(
        written(tmp_path, jcamp(WAVENUMBER, y, YUNITS="TRANSMITTANCE")),
        path_length_cm=5.0, pressure="3.99967 kPa", temperature_kelvin=298.15,
    )  # fmt: skip
    np.testing.assert_allclose(given.absorbance, epsilon, rtol=5e-4)
    hot = read_experiment(written(tmp_path, jcamp(WAVENUMBER, y, YUNITS="TRANSMITTANCE", TEMPERATURE="323.15 K", **state)))
    np.testing.assert_allclose(hot.absorbance / found.absorbance, 323.15 / 298.15, rtol=1e-9)
    lone = read_experiment(written(tmp_path, jcamp(WAVENUMBER, y, YUNITS="TRANSMITTANCE", **{"PATH LENGTH": "5 CM"})))
    assert not lone.absolute
    assert any("pressure not known" in note for note in lone.notes)


def test_mole_fractions_of_the_quantitative_database(tmp_path: Path) -> None:
    # One mole fraction of 1e-6 in 1 m of gas at 23 C: moles per litre from the molar volume, 100 cm of path.
    litres = LITRES_PER_MOL_273 * 296.15 / 273.15
    epsilon = 80.0 * ABSORBANCE
    alpha = epsilon * 1e-6 / litres * 100.0
    header = {"YUNITS": "(micromol/mol)-1m-1 (base 10)", "PRESSURE": "101.325 kPa", "TEMPERATURE": "23 C", "YFACTOR": 1e-13}
    found = read_experiment(written(tmp_path, jcamp(WAVENUMBER, alpha, **header)))
    assert found.absolute
    np.testing.assert_allclose(found.absorbance, epsilon, rtol=1e-4)
    area = 0.7 * 80.0 * 30.0 * np.sqrt(2.0 * np.pi) + 0.01 * 80.0 * 300.0
    assert found.integrate(950.0, 1250.0) == pytest.approx(area * KM_MOL_PER_EPSILON, rel=1e-3)


def test_opaque_and_noisy_transmittance_is_seen(tmp_path: Path) -> None:
    y = 10.0 ** -(5.0 * ABSORBANCE) + 0.004 * np.cos(np.arange(WAVENUMBER.size))
    y[:40] += 0.15
    found = read_experiment(written(tmp_path, jcamp(WAVENUMBER, y, YUNITS="TRANSMITTANCE")), smallest_transmittance=0.01)
    np.testing.assert_array_equal(found.saturated, y < 0.01)
    assert found.saturated.any()
    assert (y < 0.0).any()
    np.testing.assert_allclose(found.absorbance[found.saturated], 2.0, atol=1e-9)
    assert any(f"{(y < 0.01).sum()} of 801 points are opaque" in note for note in found.notes)
    assert any("above 1" in note for note in found.notes)
    assert found.absorbance.min() < 0.0


def test_a_wrong_count_is_mended_from_the_lines_and_said(tmp_path: Path) -> None:
    found = read_experiment(written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE, NPOINTS=811)))
    check_band(found)
    assert any("NPOINTS is 811, the data have 801" in note for note in found.notes)
    check_band(read_experiment(written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE, NPOINTS=811, LASTX=2420.0))))
    one_off = read_experiment(written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE, FIRSTX=802.0, LASTX=2402.0)))
    assert any("1.0 steps" in note for note in one_off.notes)
    spacing = read_experiment(written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE, DELTAX=1.9)))
    check_band(spacing)
    assert any("DELTAX" in note for note in spacing.notes)


PEAKS = "##TITLE=a\n##XUNITS=1/CM\n##YUNITS=ABSORBANCE\n##NPOINTS=2\n##PEAK TABLE=(XY..XY)\n1000,1 1100,2\n##END=\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (jcamp(WAVENUMBER, ABSORBANCE, XUNITS="PIXELS"), "unit 'PIXELS'.*set x_unit"),
        (jcamp(WAVENUMBER, ABSORBANCE, XUNITS=None), "no unit.*set x_unit"),
        (jcamp(WAVENUMBER, ABSORBANCE, YUNITS="KUBELKA-MUNK"), "KUBELKA-MUNK.*set y_unit"),
        (jcamp(WAVENUMBER, 100.0 * 10.0**-ABSORBANCE, YUNITS="TRANSMITTANCE", YFACTOR=1e-5), "a fraction.*y_unit=percent"),
        (jcamp(WAVENUMBER, 10.0**-ABSORBANCE, YUNITS="%T"), "per cent.*y_unit=transmittance"),
        (jcamp(WAVENUMBER, ABSORBANCE, MAXY=7.1), "MAXY is 7.1"),
        (jcamp(WAVENUMBER, ABSORBANCE).replace("YFACTOR=1e-07", "YFACTOR=1e-08"), "FIRSTY"),
        (jcamp(WAVENUMBER, ABSORBANCE, FIRSTX=900.0), "abscissas at the line starts"),
        (jcamp(WAVENUMBER, ABSORBANCE).replace("XFACTOR=1.0", "XFACTOR=2.0"), "abscissas at the line starts"),
        ("\n".join(line for i, line in enumerate(jcamp(WAVENUMBER, ABSORBANCE).splitlines()) if i != 60), "lines are missing"),
        ("\n".join(jcamp(WAVENUMBER, ABSORBANCE, "difdup").splitlines()[:-9]), "compressed form, NPOINTS is 801"),
        (jcamp(WAVENUMBER, ABSORBANCE, NPOINTS="many"), "##NPOINTS is 'many'"),
        (jcamp(WAVENUMBER, ABSORBANCE, LASTX=None), "##LASTX is missing"),
        (jcamp(WAVENUMBER, ABSORBANCE).replace("\n814.000000 ", "\n814.000000 ? "), "missing points"),
        (jcamp(WAVENUMBER, ABSORBANCE).replace("\n814.000000 ", "\n814.000000 x "), "cannot be decoded"),
        (PEAKS, "holds a peak table, no curve"),
        (PEAKS.replace("PEAK TABLE", "XYPOINTS"), "separate points"),
        (jcamp(WAVENUMBER, ABSORBANCE, XYDATA="(XY..XY)"), r"expected \(X\+\+"),
        ("##TITLE=nothing\n##END=\n", "no JCAMP-DX data"),
        (jcamp(WAVENUMBER, ABSORBANCE).split("800.000000")[0], "no data below"),
        ("", "empty"),
        ("wavenumber,absorbance\n", "0 points"),
        ("cm-1,absorbance\n1,0.1\n2,0.2\n2,0.3\n3,0.1\n", "from 2 to 2 cm-1 at point 3"),
        ("cm-1,absorbance\n1,0.1\n2,0.2\n3,0.3\n2.5,0.1\n4,0.1\n", "from 3 to 2.5"),
        ("cm-1,absorbance\n1,0.1\n2,nan\n3,0.3\n", "1 points with NaN"),
        ("cm-1,absorbance\n1,0.1\n2,abc\n3,0.3\n", "line 3"),
        ("cm-1,absorbance,error\n1,0.1,1\n2,0.2,1\n3,0.3,1\n", "3 names"),
        ("1,0.1\n2,0.2\n3,0.3\n", "no unit.*set x_unit"),
        ("wavelength,absorbance\n1,0.1\n2,0.2\n3,0.3\n", "unit 'wavelength'.*set x_unit"),
        ("cm-1,absorbance\n-1,0.1\n2,0.2\n3,0.3\n", "expected positive values"),
        ("cm-1,absorbance\n1,0.0\n2,0.0\n3,0.0\n", "all ordinates are 0"),
    ],
)  # fmt: skip
def test_bad_files_end_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DensnetError, match=complaint) as caught:
        read_experiment(written(tmp_path, text, "file.txt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"x_unit": "furlong"}, "furlong"),
        ({"y_unit": "colour"}, "colour"),
        ({"pressure": "30 bananas", "path_length_cm": 1.0}, "30 bananas"),
        ({"pressure": "0 Pa", "path_length_cm": 1.0}, "positive"),
        ({"path_length_cm": -5.0}, "path length is -5"),
        ({"temperature_kelvin": float("nan")}, "temperature is nan"),
        ({"temperature_kelvin": 25.0}, "makes 25 K; expected that of a gas cell"),
        ({"smallest_transmittance": 0.0}, "smallest_transmittance"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path: Path, settings: dict, complaint: str) -> None:
    path = written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE))
    with pytest.raises((SpectrumError, ConfigError), match=complaint):
        read_experiment(path, **settings)
    with pytest.raises(SpectrumError, match="not a file"):
        read_experiment(tmp_path / "none.jdx")


@pytest.mark.parametrize(
    ("head", "separator", "decimal", "percent", "settings"),
    [
        ("wavenumber (cm-1),absorbance", ",", ".", False, {}),
        ("# from the laboratory\nWavenumber_cm1;% Transmittance", ";", ",", True, {}),
        ("1/cm\tabsorbance", "\t", ".", False, {}),
        ("", " ", ".", True, {"x_unit": "cm-1", "y_unit": "percent"}),
    ],
)
def test_tables_of_any_punctuation(tmp_path: Path, head, separator, decimal, percent, settings) -> None:
    y = 100.0 * 10.0**-ABSORBANCE if percent else ABSORBANCE
    rows = [f"{a:.4f}{separator}{b:.8f}".replace(".", decimal) for a, b in zip(WAVENUMBER[::-1], y[::-1])]
    found = read_experiment(written(tmp_path, "\n".join([*([head] if head else []), *rows]), "a.csv"), **settings)
    check_band(found)
    assert any("turned round" in note for note in found.notes)


def test_nothing_is_extrapolated(tmp_path: Path) -> None:
    found = read_experiment(written(tmp_path, jcamp(WAVENUMBER, ABSORBANCE)))
    for low, high in ((700.0, 900.0), (2300.0, 2500.0), (1200.0, 1100.0)):
        with pytest.raises(SpectrumError):
            found.integrate(low, high)
