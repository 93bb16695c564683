"""Table I beside ours, each cell with a verdict.

Absolute values can be compared only in the paper's setting (its data and their sizes, and as many
epochs of the CycleGAN). There, a cell is supported if the interval of ours lies within the paper's
value +- ``tolerance`` and contradicted if it lies outside. Elsewhere a cell is judged by its
direction: whether ours differs from the column's reference row as the paper's does. The reference
row itself is then judged by its place in the column: every other row must lie on the paper's side
of it. A cell for which the paper has no value has no verdict.
"""

from collections.abc import Mapping
from typing import Any

from stages.common.claims import (
    Cell,
    Criterion,
    Estimate,
    Finding,
    Paper,
    above,
    attempt,
    below,
    exactly,
    judge,
    within,
)
from stages.gan_transform.claims import POINTS, Evidence, attack_of, column, metric_of

REFERENCE = {"ssim": "pe_same", "acc": "plain"}  # rows without a gap
IMAGES = {"uwa": "attack", "ga": "attack", "c10": "test", "c100": "transfer"}
UNITS = {"ssim": "", "acc": POINTS}


def differences(paper: Paper, setting: Mapping[str, Any]) -> str:
    """Say in words where our setting is not the paper's; empty if values are comparable."""
    apart = [
        f"{key.replace('_', ' ')} {setting.get(key)} instead of {value}"
        for key, value in paper.setting.items()
        if setting.get(key) != value
    ]
    return ", ".join(apart)


def tolerated(metric: str, tolerance: float) -> float:
    """Return the absolute deviation that counts as none: of an SSIM, or in points of accuracy."""
    return 100 * tolerance if metric == "acc" else tolerance


def _direction(evidence: Evidence, cell: Cell, reference: Cell) -> Criterion:
    """Ask whether ours lies on the paper's side of the reference row."""
    scheme, name = cell.axes["scheme"], cell.axes["column"]
    assert cell.paper is not None and reference.paper is not None  # only such cells are judged
    side = above if cell.paper > reference.paper else below
    other = reference.axes["scheme"]
    effect = column(evidence, scheme, name) - column(evidence, other, name)
    return side(f"{name} {scheme} - {other}", effect, UNITS[cell.metric])


def _same_value(evidence: Evidence, cell: Cell, tolerance: float) -> Finding:
    name = cell.axes["column"]
    assert cell.paper is not None
    criterion = within(
        f"{name} ours - paper",
        column(evidence, cell.axes["scheme"], name) - exactly(cell.paper).value,
        UNITS[cell.metric],
        margin=tolerated(cell.metric, tolerance),
    )
    return judge(cell.id, [criterion], level=evidence.level, n=evidence.n[IMAGES[name]])


def _same_direction(evidence: Evidence, cell: Cell, cells: Mapping[str, Cell]) -> Finding:
    scheme, name, reference = cell.axes["scheme"], cell.axes["column"], REFERENCE[cell.metric]
    if scheme != reference:
        criteria = [_direction(evidence, cell, cells[reference])]
    else:
        criteria = [
            _direction(evidence, other, cell) for s, other in cells.items() if s != reference
        ]
    return judge(cell.id, criteria, level=evidence.level, n=evidence.n[IMAGES[name]])


def _ours(evidence: Evidence, scheme: str, name: str) -> Estimate | None:
    return evidence.scores.get(scheme, {}).get(metric_of(scheme, name))


def table1(paper: Paper, evidence: Evidence, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"comparable", "not_comparable_because", "rows"}: paper, ours, deviation, verdict."""
    apart = differences(paper, setting)
    rows = []
    for cell in paper.cells:
        scheme, name = cell.axes["scheme"], cell.axes["column"]
        cells = {
            c.axes["scheme"]: c
            for c in paper.cells
            if c.axes["column"] == name and c.paper is not None
        }

        def finding(cell: Cell = cell, cells: Mapping[str, Cell] = cells) -> Finding:
            if apart:
                return _same_direction(evidence, cell, cells)
            return _same_value(evidence, cell, paper.tolerance)

        found = None if cell.paper is None else attempt(cell.id, finding)
        ours = _ours(evidence, scheme, name)
        lo, hi = ours.interval(evidence.level) if ours else (None, None)
        rows.append(
            {
                "id": cell.id,
                "scheme": scheme,
                "column": name,
                "metric": cell.metric,
                "attack": attack_of(scheme, name),
                "paper": cell.paper,
                "ours": ours.value if ours else None,
                "lo": lo,
                "hi": hi,
                "deviation": ours.value - cell.paper if ours and cell.paper is not None else None,
                "n": evidence.n[IMAGES[name]] if ours else None,
                "seeds": len(ours.seeds) if ours else None,
                "verdict": found.verdict if found else None,
                "reason": found.reason if found else "the paper has no value",
                "note": cell.note,
            }
        )
    return {"comparable": not apart, "not_comparable_because": apart, "rows": rows}
