"""What the reports of all papers read, count and say in the same way."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from ruamel.yaml import YAML

from stages.common import report as page
from stages.common.files import read_json
from stages.common.params import load_params, section
from stages.common.report import Html


class Sources(NamedTuple):
    """What a paper's page is made from.

    Attributes
    ----------
    params : params.yaml.
    artifacts, results : folders of the paper's profile, there or not.
    paper : the paper's paper.yaml.
    claims : those of paper.yaml, each with what was judged.
    """

    params: dict[str, Any]
    artifacts: Path
    results: Path
    paper: dict[str, Any]
    claims: list[Mapping[str, Any]]


def sources(paper: str, profile: str, root: Path = Path()) -> Sources:
    """Read what every paper's page begins with, below ``root``.

    Raises
    ------
    InputError
        If params.yaml has no such profile, or a file that exists cannot be read.
    """
    params = load_params(root / "params.yaml")
    section(params, f"profiles.{profile}.{paper}", root / "params.yaml")
    artifacts = root / "artifacts" / profile / paper
    results = root / "reports" / "results" / profile / paper
    text = (root / "stages" / paper / "paper.yaml").read_text(encoding="utf-8")
    of = YAML(typ="safe", pure=True).load(text)
    judged = {d["id"]: d for d in (optional(results / "claims.json") or {}).get("details", [])}
    claims: list[Mapping[str, Any]] = [
        {**claim, **judged.get(claim["id"], {})} for claim in of["claims"]
    ]
    return Sources(params, artifacts, results, of, claims)


def optional(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if there is none."""
    return read_json(path) if path.exists() else None


def flat(tree: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """Return (a.b, value as text) for every leaf of nested maps."""
    rows = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


# ---------------------------------------------------------------- words


def listed(items: Sequence[str]) -> str:
    """Join words as in "a, b and c"."""
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def count(n: int, noun: str) -> str:
    """Write a number with its noun, as in "1 image" or "2,000 images"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def link(claim: str) -> Html:
    """Link to a claim on the page."""
    name = html.escape(claim)
    return Html(f'<a href="#{name}">{name}</a>')


def links(claims: Sequence[str]) -> Html:
    """Link to several claims."""
    return Html(listed([link(claim) for claim in claims]))


def verdict_of(claims: Sequence[Mapping], claim: str) -> str:
    """Return a claim's verdict; "not run" if it was not judged."""
    found = (c.get("verdict") for c in claims if c["id"] == claim)
    return str(next(found, None) or "not run")


def judged(claims: Sequence[Mapping], claim: str) -> Html:
    """Write " (C1 supported)" with a link; nothing if the paper has no such claim."""
    if all(c["id"] != claim for c in claims):
        return Html("")
    return Html(f" ({link(claim)} {verdict_of(claims, claim)})")


def sentence(*parts: str) -> Html:
    """Join words and HTML into one piece of HTML."""
    return Html("".join(page.text(part) for part in parts))


# ---------------------------------------------------------------- provenance


def fingerprint(name: str, root: Path, label: str = "") -> list[tuple[str, object]]:
    """Return what is known of an image set's bytes, as rows of a table."""
    known = optional(root / f"stages/data/fingerprints/{name}.json") or {}
    label = label or f"fingerprint of {name}"
    return [(f"{label}: {k}", str(v)) for k, v in known.items() if isinstance(v, (str, int))]


def made_of(
    rows: Sequence[tuple[str, object]],
    paper: str,
    profile: str,
    *,
    params: Mapping[str, Any],
    packages: Sequence[str],
    over: str = "",
    without: Sequence[str] = (),
    root: Path = Path(),
) -> tuple[Html, Html]:
    """Return two tables: what the page was made from, and the paper's parameters.

    Parameters
    ----------
    rows : the first of the first table.
    packages : whose versions are told, as requirements.txt pins them.
    over : whose parameters win over a profile's, for the caption.
    without : keys of the paper's parameters that are left out.
    """
    rows = [*rows]
    pins = root / "requirements.txt"
    if pins.exists():
        listed = [line.split("==") for line in pins.read_text(encoding="utf-8").splitlines()]
        found = {p[0].strip().lower(): p[1].split()[0] for p in listed if len(p) == 2}
        versions = ", ".join(f"{p} {found[p]}" for p in packages if p in found)
        rows.append(("versions (requirements.txt)", versions))
    where = Html(f"<code>reports/provenance/{profile}/{paper}/</code>")
    rows.append(("seconds, device, commit of every stage", where))
    facts = page.table(
        pd.DataFrame(rows, columns=["what", "value"], dtype=object), caption="What this page shows."
    )
    general = {k: v for k, v in (params.get(paper) or {}).items() if k not in without}
    own = section(params, f"profiles.{profile}.{paper}")
    settings = [("all profiles", *row) for row in flat(general)]
    settings += [(profile, *row) for row in flat(own)]
    wins = f"general ones, {over} over both" if over else "general ones"
    values = page.table(
        pd.DataFrame(settings, columns=["profile", "key", "value"], dtype=object),
        caption=f"Parameters (params.yaml); the profile's win over the {wins}.",
        row_heads=2,
    )
    return facts, values
