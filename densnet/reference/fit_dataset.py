"""The fit stage: a label file and a basis -> a fitted data set and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pyscf import lib
from tqdm import tqdm

from densnet.basis.shells import Basis, Element
from densnet.data.fits import DensityGrid, FitReport, FitsWriter, FittedFrame, fits_to
from densnet.data.labels import Labels, read_labels
from densnet.errors import ConfigError, DataError, DensnetError
from densnet.reference.atoms import free_atom
from densnet.reference.even_tempered import LMAX, even_tempered, make_basis
from densnet.reference.fitting import density_on_grid, fit, fitted_density, nmae_percent, project
from densnet.reference.points import density_samples
from densnet.structures import Molecule
from densnet.units import MILLIDEBYE_PER_AU


@dataclass(frozen=True)
class FitSettings:
    """grid_level: of the real-space reference (PySCF's levels of Becke grids);

    points_train, points_test: samples of it that every frame carries; grid_frames_test, grid_frames_train: how many test
    frames (the first) and training frames (the last: training takes its validation frames from there) carry all of it;
    seed: of the samples.
    """

    grid_level: int = 3
    points_train: int = 2000
    points_test: int = 2000
    grid_frames_test: int = 40
    grid_frames_train: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.grid_level <= 9:
            raise ConfigError(f"fit.grid_level is {self.grid_level}; expected 0..9; 3 is what SCF programs use")
        for name in ("points_train", "points_test", "grid_frames_test", "grid_frames_train", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}; expected 0 or more; correct it")


@dataclass(frozen=True)
class BasisSettings:
    """Where the basis comes from. path: a file, or a name in the library; null makes an even-tempered one for the elements

    of the data, exponents falling by `ratio`, l up to `lmax` (at most 5).
    """

    path: str | None = None
    ratio: float = 2.2
    lmax: int = 4

    def __post_init__(self) -> None:
        if self.path is None and (not self.ratio > 1.2 or not 0 <= self.lmax <= LMAX):
            raise ConfigError(
                f"even-tempered basis with ratio={self.ratio}, lmax={self.lmax}; expected ratio > 1.2 and lmax 0..{LMAX}"
            )


def check_basis(settings: BasisSettings, numbers: Sequence[int]) -> None:
    """Raise BasisError now, before hours of labelling, if the basis lacks one of these elements."""
    if settings.path is not None:
        Basis.load(settings.path).rows(np.array(sorted(set(numbers))))


def basis_for(settings: BasisSettings, xc: str, ao_basis: str, numbers: Sequence[int]) -> Basis:
    """The basis restricted to these elements, with free atoms of this level of theory (made if the file has others).

    Raises BasisError for an element that a file lacks.
    """
    wanted = sorted(set(numbers))
    level = xc.lower(), ao_basis.lower()
    if settings.path is None:
        shells = {z: even_tempered(z, settings.ratio, settings.lmax) for z in wanted}
        name = f"even-tempered {settings.ratio:g}, l <= {settings.lmax}"
        return make_basis(name, *level, shells, {z: free_atom(z, *level) for z in wanted})
    basis = Basis.load(settings.path)
    elements = [basis.elements[r] for r in basis.rows(np.array(wanted))]
    if (basis.xc.lower(), basis.ao_basis.lower()) != level:
        elements = [Element(e.number, e.shells, free_atom(e.number, *level)) for e in elements]
    return Basis(basis.name, *level, tuple(elements))


@dataclass(frozen=True)
class _Task:
    """What a worker does for one frame. points: samples; grid: whether the whole grid is wanted."""

    index: int
    points: int
    grid: bool


def _fit_frame(path: Path, basis: Basis, settings: FitSettings, task: _Task) -> FittedFrame:
    labels = _labels_of(path)
    try:
        return _fitted_frame(labels, basis, settings, task)
    except DensnetError as error:
        raise type(error)(f"{path}, frame {task.index}: {error}") from error


def _fitted_frame(labels: Labels, basis: Basis, settings: FitSettings, task: _Task) -> FittedFrame:
    index, ao_basis = task.index, labels.level.ao_basis
    molecule, matrix = labels.frame(index), labels.density_matrix(index)
    fitted = fit(molecule, project(molecule, matrix, ao_basis, basis), labels.dipole[index], basis)
    grid = density_on_grid(molecule, matrix, ao_basis, settings.grid_level) if task.grid else None
    samples = None
    if task.points:
        rng = np.random.default_rng((settings.seed, index))  # of the frame alone: any number of workers gives the same file
        samples = density_samples(molecule, matrix, ao_basis, basis, settings.grid_level, task.points, rng)
    return FittedFrame(
        coefficient=fitted.coefficient,
        condition=fitted.condition,
        electrons_error=fitted.electrons_error,
        dipole_error=fitted.dipole_error,
        grid=grid,
        nmae_percent=_floor(molecule, fitted.coefficient, basis, grid),
        samples=samples,
        sampled_nmae_percent=_floor(molecule, fitted.coefficient, basis, samples),
    )


def _floor(molecule: Molecule, coefficient: np.ndarray, basis: Basis, grid: DensityGrid | None) -> float | None:
    if grid is None:
        return None
    return nmae_percent(fitted_density(molecule, coefficient, basis, grid.point), grid, molecule.n_electrons)


_open: dict[Path, Labels] = {}


def _labels_of(path: Path) -> Labels:
    """One read of the small arrays per worker process; density matrices are read frame by frame."""
    if path not in _open:
        lib.num_threads(1)
        _open[path] = read_labels(path)
    return _open[path]


def _fitted(path: Path, basis: Basis, settings: FitSettings, tasks: list[_Task], workers: int) -> Iterator[FittedFrame]:
    if workers == 1:
        yield from (_fit_frame(path, basis, settings, task) for task in tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        ahead = [pool.submit(_fit_frame, path, basis, settings, task) for task in tasks[: 2 * workers]]
        for k in range(len(tasks)):
            yield ahead.pop(0).result()
            if k + 2 * workers < len(tasks):  # a short queue: finished grids must not pile up in memory
                ahead.append(pool.submit(_fit_frame, path, basis, settings, tasks[k + 2 * workers]))


def _tasks(labels: Labels, settings: FitSettings) -> list[_Task]:
    test, train = labels.indices("test"), labels.indices("train")
    grids, points = np.zeros(len(labels), dtype=bool), np.zeros(len(labels), dtype=int)
    grids[test[: settings.grid_frames_test]] = True
    grids[train[max(0, len(train) - settings.grid_frames_train) :]] = True
    points[test], points[train] = settings.points_test, settings.points_train
    return [_Task(f, int(points[f]), bool(grids[f])) for f in range(len(labels))]


def fit_labels(labels_path: Path, basis_from: BasisSettings, out: Path, settings: FitSettings, workers: int = 1) -> FitReport:
    """Fit every frame of a label file and write `out` (atomically) with its report. Equal input gives equal bytes.

    Raises DataError for a bad label file or one whose density matrices are in another AO basis than it says, BasisError for
    an unknown element or a linearly dependent basis.
    """
    labels = read_labels(labels_path)
    if not len(labels):
        raise DataError(f"{labels_path} has no labelled frame; expected at least one; label again")
    basis = basis_for(basis_from, labels.level.xc, labels.level.ao_basis, labels.number.tolist())
    nmae: list[float] = []
    sampled: list[float] = []
    condition = electrons = dipole = 0.0
    with fits_to(out) as file:
        writer = FitsWriter(file, labels, basis, json.dumps(asdict(settings)), max(settings.points_train, settings.points_test))
        frames = _fitted(Path(labels_path), basis, settings, _tasks(labels, settings), workers)
        for index, frame in enumerate(tqdm(frames, total=len(labels), desc="fitting", unit="frame")):
            writer.add(index, frame)
            nmae += [] if frame.nmae_percent is None else [frame.nmae_percent]
            sampled += [] if frame.sampled_nmae_percent is None else [frame.sampled_nmae_percent]
            condition = max(condition, frame.condition)
            electrons, dipole = max(electrons, frame.electrons_error), max(dipole, frame.dipole_error)
        report = FitReport(
            frames=len(labels),
            functions=basis.size(labels.frame(0).number),
            nmae_percent_mean=float(np.mean(nmae)) if nmae else None,
            nmae_percent_worst=max(nmae, default=None),
            grid_frames=len(nmae),
            sampled_nmae_percent_mean=float(np.mean(sampled)) if sampled else None,
            sampled_frames=len(sampled),
            electrons_max_error=electrons,
            dipole_max_error_mD=MILLIDEBYE_PER_AU * dipole,
            condition_worst=condition,
        )
        writer.finish(report)
    return report
