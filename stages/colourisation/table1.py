"""Table I beside ours, each cell with a verdict.

Absolute values can be compared only in the paper's setting (its data, size and perceptual
network). There, a cell is supported if the interval of ours lies within the paper's value
+- ``tolerance`` and contradicted if it lies outside. Elsewhere a cell is judged by its direction:
whether ours differs from the row of ``bn`` as the paper's does. The row of ``bn`` itself is then
judged by its place in the table: every other row must lie on the paper's side of it.
"""

import math
from collections.abc import Mapping
from typing import Any

from stages.colourisation.claims import UNITS, Evidence, difference
from stages.common.claims import (
    Cell,
    Criterion,
    Finding,
    MissingEvidenceError,
    Paper,
    above,
    attempt,
    below,
    exactly,
    judge,
    within,
)

REFERENCE = "bn"  # the paper's baseline


def differences(paper: Paper, setting: Mapping[str, Any]) -> str:
    """Say in words where our setting is not the paper's; empty if values are comparable."""
    apart = [
        f"{key} {setting.get(key)} instead of {value}"
        for key, value in paper.setting.items()
        if setting.get(key) != value
    ]
    return ", ".join(apart)


def tolerated(metric: str, value: float, tolerance: float) -> float:
    """Absolute deviation that a relative one allows; of PSNR, the same for the RMSE, in dB."""
    return 20 * math.log10(1 + tolerance) if metric == "psnr" else tolerance * value


def _value(cell: Cell) -> float:
    if cell.paper is None:
        raise MissingEvidenceError(f"the paper prints no {cell.metric} for {cell.axes['variant']}")
    return cell.paper


def _direction(evidence: Evidence, cell: Cell, reference: Cell) -> Criterion:
    """Ask whether ours lies on the paper's side of the reference row."""
    variant, metric = cell.axes["variant"], cell.metric
    side = above if _value(cell) > _value(reference) else below
    name = f"{metric} {variant} - {REFERENCE}"
    return side(name, difference(evidence, metric, variant, REFERENCE), UNITS[metric])


def _same_value(evidence: Evidence, cell: Cell, tolerance: float) -> Finding:
    variant, metric, value = cell.axes["variant"], cell.metric, _value(cell)
    criterion = within(
        f"{metric} ours - paper",
        evidence(variant, metric) - exactly(value).value,
        UNITS[metric],
        margin=tolerated(metric, value, tolerance),
    )
    return judge(cell.id, [criterion], level=evidence.level, n=evidence.n)


def _same_direction(evidence: Evidence, cell: Cell, cells: Mapping[str, Cell]) -> Finding:
    variant = cell.axes["variant"]
    if variant != REFERENCE:
        criteria = [_direction(evidence, cell, cells[REFERENCE])]
    else:
        evidence(REFERENCE, cell.metric)
        criteria = [
            _direction(evidence, other, cell)
            for name, other in cells.items()
            if name != REFERENCE and not other.note
        ]
        if not criteria:
            raise MissingEvidenceError(f"no other row of Table I to place {REFERENCE} among")
    return judge(cell.id, criteria, level=evidence.level, n=evidence.n)


def table1(paper: Paper, evidence: Evidence, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"comparable", "setting", "rows"}: paper, ours, deviation and verdict of each cell."""
    apart = differences(paper, setting)
    rows = []
    for cell in paper.cells:
        variant, metric = cell.axes["variant"], cell.metric
        cells = {c.axes["variant"]: c for c in paper.cells if c.metric == metric}

        def finding(cell: Cell = cell, cells: Mapping[str, Cell] = cells) -> Finding:
            if apart:
                return _same_direction(evidence, cell, cells)
            return _same_value(evidence, cell, paper.tolerance)

        found = attempt(cell.id, finding)
        ours = evidence.scores.get(variant, {}).get(metric)
        lo, hi = ours.interval(evidence.level) if ours else (None, None)
        rows.append(
            {
                "id": cell.id,
                "variant": variant,
                "metric": metric,
                "paper": cell.paper,
                "ours": ours.value if ours else None,
                "lo": lo,
                "hi": hi,
                "deviation": ours.value - cell.paper if ours and cell.paper is not None else None,
                "n": evidence.n if ours else None,
                "seeds": len(ours.seeds) if ours else None,
                "verdict": found.verdict,
                "reason": found.reason,
                "note": cell.note,
            }
        )
    return {"comparable": not apart, "not_comparable_because": apart, "rows": rows}
