"""A density basis as data: shells and free atom of every element, layout of the coefficients, hash, JSON.

The basis expands the deformation density, sum_A sum_nlm dc_Anlm N_l(a) r^l exp(-a r^2) Y_lm(r - R_A), with every radial
function a single Gaussian normalised in three dimensions and Y_lm the real, integral-normalised harmonics of e3nn.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from e3nn import o3

from densnet.errors import BasisError
from densnet.files import write_text

SCHEMA, VERSION = "densnet/basis", 1
LIBRARY = Path(__file__).parent / "library"


@dataclass(frozen=True)
class Shell:
    """One Gaussian shell: angular momentum l and exponent in bohr^-2."""

    l: int
    exponent: float


@dataclass(frozen=True)
class FreeAtom:
    """Spherical neutral atom: its density as normalised s Gaussians (exponent, coefficient) and its energy in hartree."""

    exponent: tuple[float, ...]
    coefficient: tuple[float, ...]
    energy: float


@dataclass(frozen=True)
class Element:
    """Shells of one element, sorted by l and then by falling exponent, and its free atom."""

    number: int
    shells: tuple[Shell, ...]
    atom: FreeAtom


@dataclass(frozen=True)
class Basis:
    """A density basis for some elements at one level of theory. Identified by `hash`, never by `name`.

    Coefficients of N atoms are an (N, width) block in e3nn irreps order: for each l, `multiplicity[l]` slots of 2l+1
    components, where multiplicity is the largest number of shells any element has; `mask` is zero where an element
    has no shell. Raises BasisError if exponents are not positive or an element appears twice.
    """

    name: str
    xc: str
    ao_basis: str
    elements: tuple[Element, ...]

    def __post_init__(self) -> None:
        numbers = [e.number for e in self.elements]
        if not numbers or sorted(set(numbers)) != numbers:
            raise BasisError(f"basis {self.name} lists elements {numbers}; expected each once, by rising nuclear charge")
        for element in self.elements:
            exponents = np.array([s.exponent for s in element.shells] + list(element.atom.exponent))
            if not (np.isfinite(exponents).all() and (exponents > 0).all()):
                raise BasisError(
                    f"basis {self.name} has a non-positive exponent for Z={element.number}; expected all > 0 bohr^-2"
                )
            if list(element.shells) != sorted(element.shells, key=lambda s: (s.l, -s.exponent)):
                raise BasisError(f"basis {self.name}, Z={element.number}: shells must be sorted by l, then by falling exponent")
            if not any(s.l == 0 for s in element.shells):
                raise BasisError(f"basis {self.name}, Z={element.number} has no s shell; one is needed to carry charge")

    @cached_property
    def lmax(self) -> int:
        return max(s.l for e in self.elements for s in e.shells)

    @cached_property
    def multiplicity(self) -> tuple[int, ...]:
        """Slots per l, 0..lmax."""
        return tuple(max(sum(s.l == l for s in e.shells) for e in self.elements) for l in range(self.lmax + 1))

    @cached_property
    def irreps(self) -> o3.Irreps:
        """The coefficient block as e3nn irreps; a density is a true scalar, so shell l has parity (-1)^l."""
        return o3.Irreps([(n, (l, (-1) ** l)) for l, n in enumerate(self.multiplicity)])  # pyright: ignore[reportReturnType]

    @cached_property
    def width(self) -> int:
        return sum(n * (2 * l + 1) for l, n in enumerate(self.multiplicity))

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        return tuple(e.number for e in self.elements)

    @cached_property
    def slot_exponent(self) -> np.ndarray:
        """(elements, slots) exponents, bohr^-2; 1 where the element has no shell (its coefficient is masked)."""
        table = np.ones((len(self.elements), sum(self.multiplicity)))
        for row, element in enumerate(self.elements):
            for l, start in enumerate(np.cumsum((0, *self.multiplicity[:-1]))):
                own = [s.exponent for s in element.shells if s.l == l]
                table[row, start : start + len(own)] = own
        return table

    @cached_property
    def slot_mask(self) -> np.ndarray:
        """(elements, slots) True where the element has a shell."""
        table = np.zeros((len(self.elements), sum(self.multiplicity)), dtype=bool)
        for row, element in enumerate(self.elements):
            for l, start in enumerate(np.cumsum((0, *self.multiplicity[:-1]))):
                table[row, start : start + sum(s.l == l for s in element.shells)] = True
        return table

    @cached_property
    def mask(self) -> np.ndarray:
        """(elements, width) True where the element has the function."""
        repeats = np.concatenate([np.full(n, 2 * l + 1) for l, n in enumerate(self.multiplicity)])
        return np.repeat(self.slot_mask, repeats, axis=1)

    def rows(self, number: np.ndarray) -> np.ndarray:
        """(N,) row of every atom in the tables above. Raises BasisError for an element the basis lacks."""
        missing = sorted(set(np.asarray(number).tolist()) - set(self.numbers))
        if missing:
            raise BasisError(
                f"basis {self.name} has no functions for Z={missing}; it knows Z={list(self.numbers)}; "
                "choose a basis with these elements (basis=even_tempered makes one)"
            )
        return np.searchsorted(self.numbers, number)

    def size(self, number: np.ndarray) -> int:
        """Number of functions of a molecule with these nuclear charges."""
        return int(self.mask[self.rows(number)].sum())

    @cached_property
    def hash(self) -> str:
        """SHA-256 of everything but the name, 16 hex digits."""
        content = {k: v for k, v in asdict(self).items() if k != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, "version": VERSION, "hash": self.hash, **asdict(self)}, indent=1)

    @staticmethod
    def from_json(text: str) -> Basis:
        """Inverse of to_json. Raises BasisError if the text is foreign or its hash is wrong."""
        try:
            raw = json.loads(text)
            if raw["schema"] != SCHEMA or raw["version"] != VERSION:
                raise BasisError(f"found {raw['schema']} version {raw['version']}; expected {SCHEMA} version {VERSION}")
            elements = tuple(
                Element(
                    e["number"],
                    tuple(Shell(s["l"], s["exponent"]) for s in e["shells"]),
                    FreeAtom(tuple(e["atom"]["exponent"]), tuple(e["atom"]["coefficient"]), e["atom"]["energy"]),
                )
                for e in raw["elements"]
            )
            basis = Basis(raw["name"], raw["xc"], raw["ao_basis"], elements)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BasisError(f"this is not a basis file ({type(error).__name__}: {error}); expected JSON of {SCHEMA}") from error
        if basis.hash != raw["hash"]:
            raise BasisError(f"basis {basis.name} has hash {basis.hash} but its file says {raw['hash']}; the file was edited")
        return basis

    def save(self, path: Path) -> None:
        write_text(path, self.to_json())

    @staticmethod
    def load(path: Path | str) -> Basis:
        """Read a basis by path, or by name from the library. Raises BasisError if the file is missing, foreign or edited."""
        path = Path(path)
        if not path.is_file() and path.parent == Path():  # a bare name means the library
            path = LIBRARY / f"{path.name}.json"
        if not path.is_file():
            raise BasisError(
                f"no basis file at {path}; expected JSON of {SCHEMA}; give the path of a basis or a name in {LIBRARY}"
            )
        return Basis.from_json(path.read_text())
