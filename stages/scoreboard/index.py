"""Write reports/index.html and reports/scoreboard.json: what four papers claim, and what held.

``python -m stages.scoreboard.index REPORTS`` reads REPORTS/results of every profile that has run,
paper.yaml, params.yaml and the locks, and writes both files into REPORTS. Values that differ from
REPORTS/reference/released.json, the scoreboard that came with this version, stand beside those.
``--release`` makes the present scoreboard that reference.
"""

import argparse
import base64
import html
import io
import sys
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from stages.common.errors import InputError
from stages.common.files import read_json, write_json, write_text
from stages.common.render import loads
from stages.common.report import NOTHING, Html, interval, number, signed
from stages.scoreboard.collect import RELEASED, differences, scoreboard
from stages.scoreboard.verdicts import VERDICTS

STYLE = Path("notebooks/template/offline/style.css")
PAGE_LIMIT_BYTES = 1_000_000
THUMBNAIL_PX = (640, 480)  # at most
JPEG_QUALITY = 82
SIGNS = {"supported": "✓", "contradicted": "✗", "inconclusive": "?", "not run": "–"}
# paper -> its letter and name in the text, the figure that stands for it
SHOWN = {
    "gan_transform": ("A", "A learnt transformation that hides images", "reconstructions_0.png"),
    "sift_inversion": ("B", "Images back from SIFT descriptors", "fig5.png"),
    "deep_features": ("C", "Encrypting deep features", "attack_curves.png"),
    "colourisation": ("D", "Colourisation by conditional GANs", "comparison.png"),
}


class _Alt(HTMLParser):
    """Finds the text that a report gives the figure with a certain file."""

    def __init__(self, file: str):
        super().__init__()
        self.file, self.last, self.found = file, "", None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.last = values.get("alt") or ""
        if tag == "a" and values.get("href") == self.file and self.found is None:
            self.found = self.last


def thumbnail(paper: str, profile: str, reports: Path) -> dict[str, Any] | None:
    """Return a paper's figure, made small: {"data", "width", "height", "alt", "href"}, or None."""
    if paper not in SHOWN:
        return None
    name = SHOWN[paper][2]
    path, page = reports / profile / paper / name, reports / profile / f"{paper}.html"
    if not path.exists():
        return None
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail(THUMBNAIL_PX, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    alt = _Alt(f"{paper}/{name}")
    if page.exists():
        alt.feed(page.read_text(encoding="utf-8"))
    return {
        "data": base64.b64encode(buffer.getvalue()).decode(),
        "width": small.width,
        "height": small.height,
        "alt": alt.found or f"The figure {name} of the full report.",
        "href": f"{profile}/{paper}/{name}",
    }


def _value(cell: Mapping[str, Any] | None, places: int) -> str:
    """Write "11.34 [10.63, 12.06]"."""
    if cell is None or cell["ours"] is None:
        return NOTHING

    def fixed(value: float | int) -> str:
        return f"{value:,.{places}f}".replace("-", "−")

    shown = fixed(cell["ours"])
    if cell["lo"] is not None and cell["hi"] is not None:
        shown += f" [{fixed(cell['lo'])}, {fixed(cell['hi'])}]"
    return shown


def _effect(claim: Mapping[str, Any]) -> str:
    """Write "+0.31 [0.1, 0.5] dB"."""
    if claim["effect"] is None:
        return NOTHING
    parts = (signed(claim["effect"]), interval(claim["lo"], claim["hi"]), claim["unit"])
    return " ".join(filter(None, parts))


def grid(paper: Mapping[str, Any], profile: str, released: Mapping[str, Any], name: str) -> dict:
    """Arrange a paper's cells in rows (variants, then baselines) and columns (metrics).

    Returns
    -------
    {"heads": [...], "rows": [{"name", "kind", "cells": [{"paper", "ours", "verdict", "deviation",
    "released"} or None]}]}
    """
    metrics = paper["metrics"]
    rows: dict[str, dict[str, Any]] = {}
    for cell in paper["cells"]:
        row = rows.setdefault(cell["row"], {"name": cell["row"], "kind": cell["kind"]})
        ours = cell["ours"].get(profile)
        places = metrics[cell["metric"]][1]
        key = f"{name}/{profile}/{cell['id']}"
        row[cell["metric"]] = {
            "paper": None if cell["paper"] is None else f"{cell['paper']:,.{places}f}",
            "ours": _value(ours, places),
            "verdict": ours and ours["verdict"],
            "deviation": None
            if not ours or ours["deviation"] is None
            else signed(round(ours["deviation"], places)),
            "released": _value(released[key], places) if key in released else None,
        }
    return {
        "heads": [head for head, _ in metrics.values()],
        "rows": [
            {
                "name": row["name"],
                "kind": row["kind"],
                "cells": [row.get(metric) for metric in metrics],
            }
            for row in rows.values()
        ],
    }


def _ordered(papers: Mapping[str, Any]) -> list[str]:
    known = [name for name in SHOWN if name in papers]
    return known + [name for name in papers if name not in SHOWN]


def _told(paper: str, content: Mapping[str, Any], differs: Mapping[str, Any], reports: Path):
    """Return what the template shows of one paper."""
    letter, title, _ = SHOWN.get(paper, ("", paper, ""))
    profiles = [profile for profile, one in content["profiles"].items() if one]
    claims = []
    for claim in content["claims"]:
        judged = [
            {
                "profile": profile,
                **claim["ours"][profile],
                "shown": _effect(claim["ours"][profile]),
                "differs": f"{paper}/{profile}/{claim['id']}" in differs,
                "was": differs.get(f"{paper}/{profile}/{claim['id']}"),
            }
            for profile in profiles
        ]
        for one in judged:
            if one["was"]:
                one["was_shown"] = _effect(one["was"])
        claims.append({**claim, "judged": judged})
    return {
        "name": paper,
        "letter": letter,
        "title": title,
        "citation": content["paper"],
        "profiles": [{"name": p, **content["profiles"][p]} for p in profiles],
        "best": profiles[-1] if profiles else None,
        "thumbnail": thumbnail(paper, profiles[-1], reports) if profiles else None,
        "claims": claims,
        "grids": {p: grid(content, p, differs, paper) for p in profiles if content["cells"]},
        "reports": {p: (reports / p / f"{paper}.html").exists() for p in profiles},
    }


def page(found: Mapping[str, Any], differs: Mapping[str, Any], reports: Path, root: Path) -> str:
    """Render the index.

    Parameters
    ----------
    found : of :func:`stages.scoreboard.collect.scoreboard`.
    differs : of :func:`stages.scoreboard.collect.differences`.
    reports : the folder that the page will lie in; its figures are embedded, its pages linked.
    """
    templates = [Path(__file__).parent, (root / STYLE).parent]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: Html(html.escape(number(value)))
    papers = [_told(p, found["papers"][p], differs, reports) for p in _ordered(found["papers"])]
    changed = [
        f"{paper['letter']} {claim['id']}".strip()
        for paper in papers
        for claim in paper["claims"]
        for one in claim["judged"]
        if one["was"] and one["was"]["verdict"] != one["verdict"]
    ]
    return environment.get_template("index.html.j2").render(
        papers=papers,
        total=found["total"],
        claims=sum(found["total"].values()),
        verdicts=VERDICTS,
        signs=SIGNS,
        profiles=found["profiles"],
        differs=len(differs),
        changed=changed,
        nothing=NOTHING,
    )


def index(reports: Path, root: Path = Path()) -> None:
    """Write ``reports``/scoreboard.json and ``reports``/index.html.

    Raises
    ------
    InputError
        If an input is damaged, or the page would load something or be too large.
    """
    target = reports / "index.html"
    write_json(reports / "scoreboard.json", scoreboard(root))
    found = read_json(reports / "scoreboard.json")
    released = root / RELEASED
    differs = differences(found, read_json(released)) if released.exists() else {}
    text = page(found, differs, reports, root)
    if foreign := loads(text):
        raise InputError(
            target,
            "would load something",
            expected="a page that opens offline",
            found=", ".join(foreign[:3]),
            remedy="remove it from the data or the template",
        )
    if len(text.encode()) > PAGE_LIMIT_BYTES:
        raise InputError(
            target,
            "is too large",
            expected=f"at most {PAGE_LIMIT_BYTES:,} bytes",
            found=f"{len(text.encode()):,}",
            remedy="make the figures smaller",
        )
    write_text(target, text)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; exits with status 2 and one sentence if an input is bad."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.scoreboard.index", description="The scoreboard of all papers."
    )
    parser.add_argument("reports", type=Path, nargs="?", default=Path("reports"))
    parser.add_argument(
        "--release", action="store_true", help=f"make the present scoreboard {RELEASED}"
    )
    given = parser.parse_args(argv)
    try:
        if given.release:
            write_json(RELEASED, scoreboard())
            print(f"wrote {RELEASED}")
        index(given.reports)
    except InputError as error:
        print(f"error: index: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {given.reports / 'index.html'} and {given.reports / 'scoreboard.json'}")


if __name__ == "__main__":
    main()
