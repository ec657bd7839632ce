"""The fit stage: a label file and a basis -> a fitted data set and its report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from pyscf import lib
from tqdm import tqdm

from densnet.basis.shells import Basis, Element
from densnet.data.fits import FitReport, FitsWriter, FittedFrame, fits_to
from densnet.data.labels import Labels, read_labels
from densnet.errors import ConfigError
from densnet.reference.atoms import free_atom
from densnet.reference.design import even_tempered, make_basis
from densnet.reference.fitting import density_on_grid, fit, fitted_density, metric_irreps, nmae_percent, project
from densnet.units import MILLIDEBYE_PER_AU


@dataclass(frozen=True)
class FitSettings:
    """overlap_weight: mu of the stored metric M = J + mu S, hartree*bohr; grid_level: of the real-space reference (PySCF);

    grid_frames_test, grid_frames_train: how many test frames (the first) and training frames (the last: training takes its
    validation frames from there) carry a real-space reference.
    """

    overlap_weight: float = 0.5
    grid_level: int = 3
    grid_frames_test: int = 40
    grid_frames_train: int = 8


@dataclass(frozen=True)
class BasisSettings:
    """Where the basis comes from. path: a file, or a name in the library; null makes an even-tempered one for the elements

    of the data, exponents falling by `ratio`, l up to `lmax` (at most 4).
    """

    path: str | None = None
    ratio: float = 2.2
    lmax: int = 4

    def __post_init__(self) -> None:
        if self.path is None and (not self.ratio > 1.2 or not 0 <= self.lmax <= 4):
            raise ConfigError(
                f"even-tempered basis with ratio={self.ratio}, lmax={self.lmax}; expected ratio > 1.2 and lmax 0..4"
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


def _fit_frame(path: Path, basis: Basis, settings: FitSettings, index: int, with_grid: bool) -> FittedFrame:
    labels = _labels_of(path)
    molecule, matrix = labels.frame(index), labels.density_matrix(index)
    integrals = project(molecule, matrix, labels.level.ao_basis, basis)
    fitted = fit(molecule, integrals, labels.dipole[index], basis)
    metric = metric_irreps(integrals, settings.overlap_weight, basis, molecule.number)
    grid = density_on_grid(molecule, matrix, labels.level.ao_basis, settings.grid_level) if with_grid else None
    nmae = None
    if grid is not None:
        density = fitted_density(molecule, fitted.coefficient, basis, grid.point)
        nmae = nmae_percent(density, grid, molecule.n_electrons)
    return FittedFrame(
        coefficient=fitted.coefficient,
        metric=metric[np.tril_indices(len(metric))].astype("f4"),
        condition=fitted.condition,
        electrons_error=fitted.electrons_error,
        dipole_error=fitted.dipole_error,
        grid=grid,
        nmae_percent=nmae,
    )


_open: dict[Path, Labels] = {}


def _labels_of(path: Path) -> Labels:
    """One read of the small arrays per worker process; density matrices are read frame by frame."""
    if path not in _open:
        lib.num_threads(1)
        _open[path] = read_labels(path)
    return _open[path]


def _fitted(path: Path, basis: Basis, settings: FitSettings, grids: np.ndarray, n: int, workers: int) -> Iterator[FittedFrame]:
    if workers == 1:
        yield from (_fit_frame(path, basis, settings, f, bool(grids[f])) for f in range(n))
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        ahead = [pool.submit(_fit_frame, path, basis, settings, f, bool(grids[f])) for f in range(min(n, 2 * workers))]
        for f in range(n):
            yield ahead.pop(0).result()
            if f + 2 * workers < n:  # a short queue: finished metrics must not pile up in memory
                ahead.append(pool.submit(_fit_frame, path, basis, settings, f + 2 * workers, bool(grids[f + 2 * workers])))


def fit_labels(labels_path: Path, basis_from: BasisSettings, out: Path, settings: FitSettings, workers: int = 1) -> FitReport:
    """Fit every frame of a label file and write `out` (atomically) with its report.

    Raises DataError for a bad label file, BasisError for an unknown element or a linearly dependent basis.
    """
    start = time.perf_counter()
    labels = read_labels(labels_path)
    basis = basis_for(basis_from, labels.level.xc, labels.level.ao_basis, labels.number.tolist())
    grids = np.zeros(len(labels), dtype=bool)
    test, train = labels.indices("test"), labels.indices("train")
    grids[test[: settings.grid_frames_test]] = True
    grids[train[max(0, len(train) - settings.grid_frames_train) :]] = True
    nmae: list[float] = []
    condition = electrons = dipole = 0.0
    with fits_to(out) as file:
        writer = FitsWriter(file, labels, basis, settings.overlap_weight)
        frames = _fitted(Path(labels_path), basis, settings, grids, len(labels), workers)
        for index, frame in enumerate(tqdm(frames, total=len(labels), desc="fitting", unit="frame")):
            writer.add(index, frame)
            nmae += [] if frame.nmae_percent is None else [frame.nmae_percent]
            condition = max(condition, frame.condition)
            electrons, dipole = max(electrons, frame.electrons_error), max(dipole, frame.dipole_error)
        report = FitReport(
            frames=len(labels),
            functions=basis.size(labels.frame(0).number),
            nmae_percent_mean=float(np.mean(nmae)) if nmae else float("nan"),
            nmae_percent_worst=max(nmae, default=float("nan")),
            grid_frames=len(nmae),
            electrons_max_error=electrons,
            dipole_max_error_mD=MILLIDEBYE_PER_AU * dipole,
            condition_worst=condition,
            wall_s=time.perf_counter() - start,
        )
        writer.finish(report)
    return report
