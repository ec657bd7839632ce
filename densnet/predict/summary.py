"""What python -m densnet.predict prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densnet.predict.comparison import Comparison
from densnet.predict.frames import Failed, Predicted
from densnet.predict.judgement import EDGE, INSIDE, OUTSIDE
from densnet.units import DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

SHOWN = 12  # frames, failures or warnings at most; the files have all


def summary(
    results: Sequence[tuple[Predicted, Comparison | str | None]], failed: Sequence[Failed], novelty: str, folder: Path
) -> str:
    """All lines. results: frames with their comparison, or why there is none; novelty: how it was judged, or why it was not."""
    lines = [f"{'frame':>6}{'energy/eV':>16}{'max force/(eV/A)':>18}{'dipole/D':>10}  novelty"]
    for frame, _ in results[:SHOWN]:
        energy = "-" if frame.energy is None else f"{frame.energy * EV_PER_HARTREE:.4f}"
        force = "-" if frame.force is None else f"{np.linalg.norm(frame.force, axis=1).max() * EV_PER_ANGSTROM_PER_AU:.3f}"
        dipole = np.linalg.norm(frame.dipole) * DEBYE_PER_AU
        new = "not judged" if frame.novelty is None else f"{frame.novelty.verdict} ({frame.novelty.distance:.2f})"
        lines.append(f"{frame.index:>6}{energy:>16}{force:>18}{dipole:>10.3f}  {new}")
    if len(results) > SHOWN:
        lines.append(f"   ... and {len(results) - SHOWN} more")
    for frame, _ in results[:SHOWN]:
        if (s := frame.spread) is not None:
            parts = [f"dipole {s.dipole_millidebye:.1f} mD"]
            if s.energy_mev is not None and s.force_mev_per_angstrom is not None:
                parts = [f"energy {s.energy_mev:.1f} meV", f"forces {s.force_mev_per_angstrom:.1f} meV/angstrom", *parts]
            lines.append(f"frame {frame.index}: {s.models} models spread by {', '.join(parts)}")
    for frame, comparison in results:
        if isinstance(comparison, Comparison):
            level = comparison.level
            lines += [f"frame {frame.index} against {level.xc}/{level.ao_basis} ({comparison.program}):", *comparison.lines()]
        elif comparison is not None:
            lines.append(f"frame {frame.index}: no reference calculation: {comparison}")
    lines += _novelty(results, novelty)
    lines += [f"frame {one.index} failed: {one.reason}" for one in failed[:SHOWN]]
    if len(failed) > SHOWN:
        lines.append(f"... and {len(failed) - SHOWN} more failed")
    lines.append(f"{folder}: {len(results)} frames predicted, {len(failed)} failed")
    return "\n".join(lines)


def _novelty(results: Sequence[tuple[Predicted, object]], how: str) -> list[str]:
    judged = [frame.novelty for frame, _ in results if frame.novelty is not None]
    if not judged:
        return [f"novelty not judged: {how}"]
    words = {INSIDE: "inside", EDGE: "at the edge of", OUTSIDE: "outside"}
    counts = {verdict: sum(n.verdict == verdict for n in judged) for verdict in words}
    lines = [
        f"frame {frame.index} is {words[n.verdict]} what the model has seen: {n.statement}"
        for frame, _ in results
        if (n := frame.novelty) is not None and n.verdict != INSIDE
    ]
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"... and {len(lines) - SHOWN} more"]
    found = ", ".join(f"{count} {words[verdict]}" for verdict, count in counts.items() if count)
    return [*lines, f"{found} what the model has seen; {how}"]
