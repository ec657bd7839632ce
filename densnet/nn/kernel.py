"""The convolution on a CPU as one loop over the edges: densnet/nn/convolution.cpp as an operator of torch.

Matrix products of a few rows are slow on a CPU, and messages that are written to memory before they are summed are slower. The
operator is linear in each of features, harmonics and weights, so its derivatives of any order are the same two loops again.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densnet.files import replacing
from densnet.nn.irreps import coupling

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("convolution.cpp")
# What -ffast-math does, without its start-up code, which would flush denormal numbers in the whole process.
FLAGS = ("-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno")
TYPES = {torch.float32: "float", torch.float64: "double"}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}  # a term left out is an error of order one
LARGEST_L = 8  # of any irrep, as in convolution.cpp


class _Shape(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("atoms", "edges", "width_in", "width_edge", "width_out", "paths", "threads")),
        *((name, ctypes.c_void_p) for name in ("path", "term", "value")),
    ]


@cache
def library(channels: int, dtype: torch.dtype = torch.float32) -> ctypes.CDLL | None:
    """The kernel for so many channels, float32 or float64, built at first need (seconds) and kept in the user's cache.

    None, with a warning, where it cannot be built or does not give what it should.
    """
    if dtype not in TYPES:
        return None
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        log.warning("no C++ compiler: convolutions run as matrix products, several times slower; install g++ or set CXX")
        return None
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    wide = ("-mprefer-vector-width=512",) if "avx512" in _processor() else ()
    command = (compiler, *FLAGS, *wide, "-fopenmp", "-shared", "-fPIC", f"-DCHANNELS={channels}", f"-DREAL={TYPES[dtype]}")
    # What was built for another processor would end with an illegal instruction.
    identity = "\n".join((SOURCE.read_text(), *command, version, _processor()))
    name = f"convolution-{channels}-{TYPES[dtype]}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    path = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "densnet" / name
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                subprocess.run([*command, str(SOURCE), "-o", str(temporary)], check=True, capture_output=True, text=True)
        built = ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())[:200]
        log.warning("the kernel of the convolution cannot be built (%s); running matrix products, several times slower", reason)
        return None
    off = _check(built, channels, dtype)
    if not off < TOLERANCE[dtype]:
        log.warning(
            "the kernel of the convolution is wrong by %.1e (%s); running matrix products instead; delete that file", off, path
        )
        return None
    return built


def _check(built: ctypes.CDLL, channels: int, dtype: torch.dtype) -> float:
    """Largest relative error of a small convolution and of its gradients, by which compilers and old files are judged.

    The result is linear in each argument, so the product of an argument with its gradient is that of result and cotangent.
    """
    triple = ((0, 0, 0), (1, 1, 0), (1, 0, 1), (0, 1, 1))
    path, term, value = tables([0, 1], [0, 1], triple)
    shapes = (3, 4, channels), (4, 4), (4, 4, channels), (3, 8, channels)
    random = torch.Generator().manual_seed(0)
    h, y, w, g = (torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes)
    source, target = torch.tensor([1, 2, 0, 0]), torch.tensor([0, 0, 1, 2])
    out, gradients = torch.empty_like(g), [torch.empty_like(x) for x in (h, y, w)]
    given = (path, term, value.to(dtype))
    _call(built, "convolve", h, y, w, given, 8, source, target, out)
    _call(built, "convolve_gradient", h, y, w, given, 8, source, target, g, *gradients)
    expected = torch.zeros(3, 8, channels, dtype=torch.float64)
    there, y64, w64 = h[source].double(), y.double(), w.double()
    for p, (start, n, row, stride, m, first, last) in enumerate(path.tolist()):
        matrix = torch.zeros(4, n * m, dtype=torch.float64)
        for (edge, entry), factor in zip(term[first:last].tolist(), value[first:last].tolist()):
            matrix[:, entry] += factor * y64[:, edge]
        block = torch.einsum("ekm,ekc->emc", matrix.view(4, n, m), there[:, start : start + n]) * w64[:, p, None]
        expected[:, row : row + m * stride : stride].index_add_(0, target, block)
    off = float((out - expected).abs().max() / expected.abs().max())
    total = float((g.double() * expected).sum())
    size = float((g.double() * expected).abs().sum())
    errors = [abs(float((a.double() * b.double()).sum()) - total) / size for a, b in zip((h, y, w), gradients)]
    return max(off, *errors)


@cache
def _processor() -> str:
    """What the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}"


def tables(l_in: Sequence[int], l_out: Sequence[int], triple: Sequence[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Coupling paths as the kernel wants them: (paths, 7) and (terms, 2) int32, (terms,) float64; Path, Term in convolution.cpp.

    l_in, l_out: of the irreps; triple: (edge l, input, output) of every path, by output. In the result of the kernel an output
    irrep is a block of rows (2l+1, its paths).
    """
    counts = [sum(o == k for *_, o in triple) for k in range(len(l_out))]
    start_in = np.cumsum([0, *(2 * l + 1 for l in l_in)])
    start_out = np.cumsum([0, *(n * (2 * l + 1) for n, l in zip(counts, l_out))])
    seen = [0] * len(l_out)
    paths: list[tuple[int, ...]] = []
    terms: list[tuple[int, int]] = []
    values: list[float] = []
    for l_edge, i, o in triple:
        a, b = l_in[i], l_out[o]
        cg = coupling(a, l_edge, b).numpy()
        first = len(terms)
        for k, q, m in np.argwhere(np.abs(cg) > 1e-12).tolist():
            terms.append((l_edge**2 + q, k * (2 * b + 1) + m))
            values.append(float(cg[k, q, m]))
        paths.append((start_in[i], 2 * a + 1, start_out[o] + seen[o], counts[o], 2 * b + 1, first, len(terms)))
        seen[o] += 1
    return (
        torch.tensor(np.array(paths), dtype=torch.int32).reshape(-1, 7),
        torch.tensor(np.array(terms), dtype=torch.int32).reshape(-1, 2),
        torch.tensor(values, dtype=torch.float64),
    )


def _call(
    built: ctypes.CDLL,
    name: str,
    h: Tensor,
    harmonics: Tensor,
    weight: Tensor,
    tables: Sequence[Tensor],
    width: int,
    *rest: Tensor,
) -> None:
    """Run a function of a library. width: rows of its result; rest: source, target, and what follows the inputs."""
    source, target, *more = rest
    path, term, value = tables
    shape = _Shape(
        h.shape[0], source.shape[0], h.shape[1], harmonics.shape[1], width, path.shape[0], torch.get_num_threads(),
        *(t.data_ptr() for t in (path, term, value)),
    )  # fmt: skip
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (source, target, h, harmonics, weight, *more)]
    getattr(built, name)(ctypes.byref(shape), *pointers)


def _checked(h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor, target: Tensor, value: Tensor) -> ctypes.CDLL:
    """The library for these; TypeError where it would read them as what they are not."""
    built, edges = library(h.shape[2], h.dtype), source.shape[0]
    kinds = {x.dtype for x in (h, harmonics, weight, value)}, {source.dtype, target.dtype}
    sizes = (harmonics.shape[0], weight.shape[0], target.shape[0]), weight.shape[2]
    if built is None or kinds != ({h.dtype}, {torch.int64}) or sizes != ((edges,) * 3, h.shape[2]):
        raise TypeError(f"the kernel got {kinds}, sizes {sizes} for {edges} edges; expected one type it is built for, and int64")
    return built


@torch.library.custom_op("densnet::convolve", mutates_args=(), device_types="cpu")
def convolve(
    h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor, target: Tensor,
    path: Tensor, term: Tensor, value: Tensor, width: int,
) -> Tensor:  # fmt: skip
    """(N, width, channels) from h: (N, components, channels), harmonics: (E, at least as many as the paths use) and

    weight: (E, paths, channels), float32 or float64; source, target: (E,), target ascending; path, term, value: `tables`.
    """
    built = _checked(h, harmonics, weight, source, target, value)
    h, harmonics, weight = h.contiguous(), harmonics.contiguous(), weight.contiguous()
    out = h.new_empty((h.shape[0], width, h.shape[2]))
    _call(built, "convolve", h, harmonics, weight, (path, term, value), width, source.contiguous(), target.contiguous(), out)
    return out


@torch.library.custom_op("densnet::convolve_gradient", mutates_args=(), device_types="cpu")
def convolve_gradient(
    gradient: Tensor, h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor, target: Tensor,
    path: Tensor, term: Tensor, value: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients in h, harmonics and weight of sum(gradient * convolve(...))."""
    built = _checked(h, harmonics, weight, source, target, value)
    h, harmonics, weight, gradient = h.contiguous(), harmonics.contiguous(), weight.contiguous(), gradient.contiguous()
    out = torch.empty_like(h), torch.empty_like(harmonics), torch.empty_like(weight)
    ends = source.contiguous(), target.contiguous()
    _call(built, "convolve_gradient", h, harmonics, weight, (path, term, value), gradient.shape[1], *ends, gradient, *out)
    return out


@convolve.register_fake
def _(h: Tensor, harmonics: Tensor, weight: Tensor, source: Tensor, target: Tensor, path: Tensor, term: Tensor, value: Tensor,
      width: int) -> Tensor:  # fmt: skip
    return h.new_empty((h.shape[0], width, h.shape[2]))


@convolve_gradient.register_fake
def _(gradient: Tensor, h: Tensor, harmonics: Tensor, weight: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        h.new_empty(h.shape),
        harmonics.new_empty(harmonics.shape),
        weight.new_empty(weight.shape),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*(x for x in inputs if isinstance(x, Tensor)))


def _convolve_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return *convolve_gradient(gradient, *ctx.saved_tensors), *(None,) * 6


def _gradient_backward(ctx: Any, *wanted: Tensor | None) -> tuple[Tensor | None, ...]:
    """With f(g, h, y, w) = sum(g * convolve(h, y, w)), linear in each, the outputs were df/dh, df/dy, df/dw; what is wanted of

    them, (a, b, c), makes f(g, a, y, w) + f(g, h, b, w) + f(g, h, y, c) the function to differentiate.
    """
    gradient, *arguments, source, target, path, term, value = ctx.saved_tensors
    tables, width = (source, target, path, term, value), gradient.shape[1]
    out: list[Tensor | None] = [None] * 4
    for k, other in enumerate(wanted):
        if other is None:
            continue
        here = [*arguments[:k], other, *arguments[k + 1 :]]
        found: list[Tensor | None] = [convolve(*here, *tables, width), *convolve_gradient(gradient, *here, *tables)]
        found[1 + k] = None  # the argument that was replaced
        out = [b if a is None else a if b is None else a + b for a, b in zip(out, found)]
    return *out, *(None,) * 5


convolve.register_autograd(_convolve_backward, setup_context=_keep)
convolve_gradient.register_autograd(_gradient_backward, setup_context=_keep)
