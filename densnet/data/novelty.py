"""Has the training data seen such atoms? Distance of every atom's surroundings from those of the training frames.

Surroundings of atom i, smooth in all positions, the same under rotation and exchange of equal atoms (partial power spectrum;
A. P. Bartok, R. Kondor, G. Csanyi, Phys. Rev. B 87, 184115 (2013)), with s, t elements and n radial functions:

    c_i,s,n,lm = sum over j of element s  g_n(r_ij) S_lm(r_ij / |r_ij|),   g_n = exp(-(r - r_n)^2 / 2 w^2) f_cut(r)
    x_i = ( c_i,s,n,00 ;  sum_m c_i,s,n,lm c_i,t,n,lm  for s <= t, l > 0 )

Directions count by how little the training data varies along them: with covariance C of the training atoms of the element,
d^2 = dx^T (C + floor)^-1 dx, floor a small part of the largest eigenvalue. The directions whose variance is below the floor are
kept as one number, the distance from the space of the others.

An atom is as far as its nearest reference; the references are training atoms chosen farthest first (T. F. Gonzalez, Theor.
Comput. Sci. 38, 293 (1985)). A frame is as far as its farthest atom, in units of what is usual for that element. What is usual
comes from the training frames themselves: the data are divided into parts, and each part is measured against the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from densnet.basis.harmonics import solid_harmonics
from densnet.data.fits import Fits
from densnet.data.neighbours import neighbours
from densnet.errors import DataError
from densnet.structures import Molecules
from densnet.units import ANGSTROM_PER_BOHR

CUTOFF = 4.0 / ANGSTROM_PER_BOHR  # bohr; farther atoms move with the nearer ones
NEAREST = 0.7 / ANGSTROM_PER_BOHR  # centre of the first radial function
RADIAL, LMAX = 8, 3
WIDTH = 0.8  # of a radial function, in distances between them
FLOOR = 1e-3  # of the largest variance
REFERENCES = 400  # of an element, at most
PARTS = 5
UNIT = 0.99  # quantile of the distances of an element that counts as one
LEVELS = (0.5, 0.9, 0.99, 0.999, 1.0)
CHUNK = 256  # molecules at once


def surroundings(molecules: Molecules, species: tuple[int, ...]) -> Tensor:
    """(N, F) float64, x of the module docstring; species: nuclear charges counted as neighbours, others are not seen."""
    edges = neighbours(molecules, CUTOFF)
    known = torch.tensor(species, device=molecules.number.device)
    match = molecules.number[edges.source][:, None] == known
    seen = match.any(1)
    source, target = match.to(torch.int64).argmax(1)[seen], edges.target[seen]
    vector, length = edges.vector[seen].to(torch.float64), edges.length[seen].to(torch.float64)
    spacing = (CUTOFF - NEAREST) / RADIAL
    centre = NEAREST + spacing * torch.arange(RADIAL, dtype=torch.float64, device=length.device)
    radial = torch.exp(-((length[:, None] - centre) ** 2) / (2 * (WIDTH * spacing) ** 2))
    radial = radial * (0.5 * (1 + torch.cos(pi * length / CUTOFF)))[:, None]
    angular = solid_harmonics(LMAX, vector / length[:, None])
    n = len(molecules.number)
    first, second = torch.triu_indices(len(species), len(species), device=length.device)
    out = []
    for l, y in enumerate(angular):
        c = radial.new_zeros(n * len(species), RADIAL, 2 * l + 1)
        c.index_add_(0, target * len(species) + source, radial[:, :, None] * y[:, None])
        c = c.view(n, len(species), RADIAL, 2 * l + 1) * sqrt(4 * pi / (2 * l + 1))
        out.append(c.flatten(1) if l == 0 else (c[:, first] * c[:, second]).sum(-1).flatten(1))
    return torch.cat(out, 1)


@dataclass(frozen=True)
class SeenElement:
    """The training atoms of one element. mean: (F,); direction: (F, k), scaled; y = (x - mean) @ direction; floor: variance of

    what is left; reference: (R, k), y of the references; unit: distance that counts as one.
    """

    mean: Tensor
    direction: Tensor
    floor: float
    reference: Tensor
    unit: float

    def distance(self, x: Tensor) -> Tensor:
        """(A,) distance of surroundings (A, F) from the nearest reference, in units of `unit`."""
        y, left = _projected(x, self.mean, self.direction, self.floor)
        return torch.sqrt(torch.cdist(y, self.reference).amin(1) ** 2 + left) / self.unit


@dataclass(frozen=True)
class Seen:
    """What the training data has seen. species: nuclear charges, one entry of elements each; frames: training frames;

    levels, quantile: a part `levels[k]` of the training frames is nearer than quantile[k] to frames of the other parts.
    """

    species: tuple[int, ...]
    elements: tuple[SeenElement, ...]
    frames: int
    levels: tuple[float, ...]
    quantile: tuple[float, ...]
    data_hash: str

    def atoms(self, molecules: Molecules) -> np.ndarray:
        """(N,) distance of every atom; infinite for elements that are not in the data."""
        x, number = surroundings(molecules, self.species).cpu(), molecules.number.cpu()
        out = torch.full((len(number),), torch.inf, dtype=torch.float64)
        for z, element in zip(self.species, self.elements):
            of = number == z
            if of.any():
                out[of] = element.distance(x[of])
        return out.numpy()


def _projected(x: Tensor, mean: Tensor, direction: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """y (A, k), and (A,) the squared distance from the space of the directions over the floor."""
    dx = x - mean
    y = dx @ direction
    inside = y / direction.square().sum(0).sqrt()
    return y, (dx.square().sum(1) - inside.square().sum(1)).clamp(min=0) / floor


def _element(x: Tensor) -> SeenElement:
    """From the surroundings (A, F) of its training atoms; unit 1."""
    mean = x.mean(0)
    value, vector = torch.linalg.eigh((x - mean).T @ (x - mean) / max(len(x) - 1, 1))
    # Data that never varies has no scale of its own; then lengths of x count as they are.
    floor = max(FLOOR * float(value[-1]), 1e-6)
    keep = value > floor
    direction = vector[:, keep] / torch.sqrt(value[keep] + floor)
    y, left = _projected(x, mean, direction, floor)
    return SeenElement(mean, direction, floor, y[_farthest(y, left)], 1.0)


def _farthest(y: Tensor, left: Tensor) -> Tensor:
    """Indices of at most REFERENCES rows: the one nearest to the mean, then always the one farthest from those chosen."""
    chosen = [int((y.square().sum(1) + left).argmin())]
    distance = (y - y[chosen[0]]).square().sum(1)
    while len(chosen) < min(REFERENCES, len(y)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (y - y[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def seen(fits: Fits) -> Seen:
    """The record of the training frames of a data set. Raises DataError if there are fewer than two for each part."""
    train = fits.indices("train")
    if len(train) < 2 * PARTS:
        raise DataError(
            f"{fits.path} has {len(train)} training frames; expected at least {2 * PARTS} to know what is usual; "
            "give a larger set"
        )
    species = tuple(sorted(set(fits.number[fits.atoms_of(train)].tolist())))
    blocks = [Molecules.of([fits.frame(f) for f in train[k : k + CHUNK].tolist()]) for k in range(0, len(train), CHUNK)]
    x = torch.cat([surroundings(block, species) for block in blocks])
    number = torch.cat([block.number for block in blocks])
    frame = torch.as_tensor(np.repeat(np.arange(len(train)), [fits.frame_ptr[f + 1] - fits.frame_ptr[f] for f in train]))
    part = torch.as_tensor(np.random.default_rng(0).permutation(len(train)) % PARTS)[frame]
    score, elements = torch.zeros(len(train), dtype=torch.float64), []
    for z in species:
        of = number == z
        distance = torch.zeros(int(of.sum()), dtype=torch.float64)
        for k in range(PARTS):
            here, rest = part[of] == k, part[of] != k
            if here.any() and rest.any():
                distance[here] = _element(x[of][rest]).distance(x[of][here])
        whole = _element(x[of])
        # A data set whose frames repeat each other has no usual distance; a hundredth of a standard deviation then counts as one.
        unit = max(float(distance.quantile(UNIT)), 1e-2)
        elements.append(SeenElement(whole.mean, whole.direction, whole.floor, whole.reference, unit))
        score = score.scatter_reduce(0, frame[of], distance / unit, "amax")
    quantile = torch.quantile(score, torch.tensor(LEVELS, dtype=torch.float64)).tolist()
    return Seen(species, tuple(elements), len(train), LEVELS, tuple(quantile), fits.labels_hash)
