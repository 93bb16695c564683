"""The parts of a report page that all papers share, as HTML: tables, figures, verdicts, claims."""

import base64
import html
import io
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

VERDICTS = ("supported", "contradicted", "inconclusive", "not run")
NOTHING = "–"
EMBED_LIMIT_BYTES = 400_000  # ours: a larger PNG goes into the page as JPEG, the file stays PNG
JPEG_QUALITY = 90
LONG_LETTERS = 30  # a longer cell may wrap


class Html(str):
    """Text that is HTML already: not escaped again. IPython displays it as HTML."""

    def _repr_html_(self) -> str:
        return str(self)


def text(value: object) -> Html:
    """Escape a value for HTML; None and NaN become a dash, floats get 4 significant digits."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Html(NOTHING)
    if isinstance(value, bool):
        return Html("yes" if value else "no")
    return Html(html.escape(number(value) if isinstance(value, numbers.Number) else str(value)))


def number(value: object, digits: int = 4) -> str:
    """Write a number with ``digits`` significant digits, a true minus, no exponent if it can."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace("-", "−")
    shown = float(value)  # pyright: ignore[reportArgumentType]
    if shown == 0 or 1e-3 <= abs(shown) < 1e6:
        places = digits - 1 - (math.floor(math.log10(abs(shown))) if shown else 0)
        return f"{shown:,.{max(places, 0)}f}".replace("-", "−")
    return f"{shown:.{digits}g}".replace("-", "−")


def signed(value: float | int | None, digits: int = 3) -> str:
    """Write a difference with its sign, as in +0.31 or −0.31."""
    shown = number(value, digits)
    return shown if value is None or value <= 0 else f"+{shown}"


def interval(lo: float | int | None, hi: float | int | None, digits: int = 3) -> str:
    """Write a confidence interval, as in [−0.5, 0.2]; nothing if there is none."""
    return "" if lo is None or hi is None else f"[{number(lo, digits)}, {number(hi, digits)}]"


def chip(verdict: str) -> Html:
    """Mark a verdict: by its words, and by colour."""
    name = verdict if verdict in VERDICTS else "other"
    return Html(f'<span class="chip {name.replace(" ", "-")}">{html.escape(verdict)}</span>')


def tally(verdicts: Sequence[str]) -> Html:
    """Count verdicts, as a list of chips; all four are listed, so that a zero is seen."""
    items = "".join(f"<li>{chip(v)} {verdicts.count(v)}</li>" for v in VERDICTS)
    return Html(f'<ul class="tally" aria-label="Verdicts">{items}</ul>')


def table(
    frame: pd.DataFrame,
    *,
    caption: str,
    row_heads: int = 1,
    quiet: Sequence[int] = (),
    rules: Sequence[int] = (),
    csv: str | None = None,
) -> Html:
    """Write a table that scrolls in its own container.

    Parameters
    ----------
    frame : cells are text, numbers, None or :class:`Html`; two-level columns get grouped heads.
    caption : plain text or :class:`Html`.
    row_heads : how many leading columns name the row.
    quiet : positions of rows shown faint, e.g. the trivial baselines.
    rules : positions of rows with a line above.
    csv : relative address of the same numbers as a file.
    """
    numeric = [_is_numeric(frame.iloc[:, j].tolist()) for j in range(frame.shape[1])]
    link = f' <a href="{html.escape(csv)}">CSV</a>' if csv else ""
    head = _head(frame.columns, numeric)
    body = []
    for i, row in enumerate(frame.itertuples(index=False, name=None)):
        classes = " ".join([*["quiet"] * (i in quiet), *["rule"] * (i in rules)])
        cells = []
        for j, value in enumerate(row):
            long = isinstance(value, str) and len(_plain(value)) > LONG_LETTERS
            kind = "num" if numeric[j] and j >= row_heads else "text" if long else ""
            start, end = ('<th scope="row"', "</th>") if j < row_heads else ("<td", "</td>")
            opened = f'{start} class="{kind}">' if kind else f"{start}>"
            cells.append(f"{opened}{text(value)}{end}")
        start = f'<tr class="{classes}">' if classes else "<tr>"
        body.append(f"{start}{''.join(cells)}</tr>")
    label = html.escape(_plain(caption), quote=True)
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n'
        f"<caption>{text(caption)}{link}</caption>\n<thead>{head}</thead>\n<tbody>\n"
        + "\n".join(body)
        + "\n</tbody></table></div>"
    )


def _is_numeric(values: Sequence[object]) -> bool:
    """Tell a column of numbers (also with a sign or an interval) from one of words."""
    shown = [_plain(text(value)).strip() for value in values]
    shown = [value for value in shown if value not in ("", NOTHING)]
    return bool(shown) and all(v.lstrip("+−-±[")[:1].isdigit() for v in shown)


def _plain(value: str) -> str:
    """Return the words of a piece of HTML, for labels."""
    if not isinstance(value, Html):
        return value
    return html.unescape(re.sub(r"<[^>]+>", "", value))


def _head(columns: pd.Index, numeric: Sequence[bool]) -> str:
    def cell(name: object, j: int) -> str:
        kind = ' class="num"' if numeric[j] else ""
        return f'<th scope="col"{kind}>{text(name)}</th>'

    if columns.nlevels == 1:
        return "<tr>" + "".join(cell(name, j) for j, name in enumerate(columns)) + "</tr>"
    first, second, groups = [], [], list(columns)
    j = 0
    while j < len(groups):
        group = groups[j][0]
        span = 1
        while j + span < len(groups) and groups[j + span][0] == group and group:
            span += 1
        if group:
            first.append(f'<th scope="colgroup" colspan="{span}">{text(group)}</th>')
            second.extend(cell(groups[k][1], k) for k in range(j, j + span))
        else:
            first.append(f'<th scope="col" rowspan="2">{text(groups[j][1])}</th>')
        j += span
    return f"<tr>{''.join(first)}</tr><tr>{''.join(second)}</tr>"


def figure(path: Path, *, alt: str, caption: str, wide: bool = False, dpi: int) -> Html:
    """Embed a PNG in the page, with links to it and to the SVG and CSV beside it, if there are any.

    Parameters
    ----------
    path : the PNG, in the page's folder of figures.
    alt : what a reader who cannot see the image should know.
    caption : plain text or :class:`Html`.
    wide : show every pixel and let the figure scroll, instead of fitting it to the page.
    dpi : the density the PNG was drawn at; it is shown at 96 px an inch.
    """
    content, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(content)) as image:
        width, height = (round(side * 96 / dpi) for side in image.size)
        if len(content) > EMBED_LIMIT_BYTES:
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "jpeg", quality=JPEG_QUALITY, subsampling=0)
            content, kind = buffer.getvalue(), "jpeg"
    here = f"{path.parent.name}/{path.name}"
    links = f'<a href="{html.escape(here)}">PNG</a>'
    for suffix in (".svg", ".csv"):
        if path.with_suffix(suffix).exists():
            file = html.escape(str(Path(here).with_suffix(suffix)))
            links += f' <a href="{file}">{suffix[1:].upper()}</a>'
    data = base64.b64encode(content).decode()
    return Html(
        f"<figure{' class=wide' if wide else ''}>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{path.stem}">'
        f'<img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" '
        f'alt="{html.escape(alt)}"></div>\n'
        f"<figcaption>{text(caption)} {links}</figcaption></figure>"
    )


def not_run(what: str, stage: str) -> Html:
    """Say that a result is missing, and what would make it."""
    return Html(
        f'<p class="note">{chip("not run")} {text(what)}: run <code>{text(stage)}</code>.</p>'
    )


def claim(detail: Mapping) -> Html:
    """Write one claim: its verdict, what it says, what was measured, and why so judged.

    Parameters
    ----------
    detail : id, statement, source, verdict, reason, table1 (what the paper's own numbers say),
        effect, lo, hi, unit, n, seeds, parts ({name, effect, lo, hi, verdict}, ...); all but the
        first two may be missing.
    """
    verdict = str(detail.get("verdict") or "not run")
    said = {True: "hold", False: "do not hold"}.get(detail.get("table1"))  # pyright: ignore
    facts = []
    if detail.get("effect") is not None:
        unit = f" {detail['unit']}" if detail.get("unit") else ""
        shown = " ".join(
            filter(None, [signed(detail["effect"]), interval(detail.get("lo"), detail.get("hi"))])
        )
        facts.append(f"effect {shown}{unit}")
    if detail.get("n"):
        facts.append(f"{number(detail['n'])} images")
    if detail.get("seeds"):
        facts.append(f"{number(detail['seeds'])} {'seed' if detail['seeds'] == 1 else 'seeds'}")
    if said:
        facts.append(f"on the paper's own numbers it would {said.replace('do not', 'not')}")
    if detail.get("source"):
        facts.append(f"source: {detail['source']}")
    parts = detail.get("parts") or []
    inner = ""
    if len(parts) > 1:
        frame = pd.DataFrame(
            {
                "part": [str(part["name"]) for part in parts],
                "effect [95 % CI]": [
                    Html(
                        f"{signed(part.get('effect'))} "
                        f"<small>{interval(part.get('lo'), part.get('hi'))}</small>"
                    )
                    for part in parts
                ],
                "verdict": [chip(str(part.get("verdict") or "not run")) for part in parts],
            },
            dtype=object,
        )
        inner = table(frame, caption=f"Parts of {detail['id']}")
    reason = f"<p>{text(detail['reason'])}</p>" if detail.get("reason") else ""
    return Html(
        f'<section class="claim" id="{html.escape(str(detail["id"]))}">'
        f'<div class="head"><h3>{text(detail["id"])}</h3>{chip(verdict)}</div>'
        f"<p>{text(detail['statement'])}</p>{reason}"
        f'<p class="meta">{text("; ".join(facts))}</p>{inner}</section>'
    )


def claims(details: Sequence[Mapping]) -> Html:
    """Write all claims, after a count of their verdicts."""
    verdicts = [str(detail.get("verdict") or "not run") for detail in details]
    cards = "\n".join(claim(detail) for detail in details)
    return Html(f'{tally(verdicts)}\n<div class="claims">\n{cards}\n</div>')


def deviations(items: Sequence[tuple[str, str, str]]) -> Html:
    """Write departures as a table: the paper | here | why."""
    frame = pd.DataFrame(
        list(items), columns=["the paper or its code", "here", "why"], dtype=object
    )
    return table(frame, caption="Departures from the paper", row_heads=0)
