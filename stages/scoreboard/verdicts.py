"""Collect every paper's verdicts into one file, and show them in a terminal.

``python -m stages.scoreboard.verdicts RESULTS OUT --profile P`` reads RESULTS/<paper>/claims.json
of every paper (a folder of ``stages`` with a paper.yaml) and writes OUT: counts, which ``dvc
metrics`` shows, and the list. RESULTS is reports/results/P if left out, OUT its verdicts.json.
``--show`` only prints.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.common.errors import InputError, shown, suggestion
from stages.common.files import read_json, write_json
from stages.common.params import PARAMS, load_params
from stages.common.stage import one_sentence

VERDICTS = ("supported", "contradicted", "inconclusive", "not run")
NARROWEST = 40  # columns; below it the statement is not worth cutting further


def papers(root: Path = Path()) -> list[str]:
    """Return the names of the papers: the folders of ``stages`` with a paper.yaml."""
    return sorted(path.parent.name for path in (root / "stages").glob("*/paper.yaml"))


def collect(results: Path, root: Path = Path()) -> dict[str, Any]:
    """Return {"papers": {paper: {verdict: count}}, "total": ..., "all": [every verdict]}.

    The claims are those of paper.yaml; one without a result is "not run".

    Raises
    ------
    InputError
        If a claims.json is damaged, judges an unknown claim, or has an unknown verdict.
    """
    counts: dict[str, dict[str, int]] = {}
    everything: list[dict[str, Any]] = []
    for paper in papers(root):
        path = results / paper / "claims.json"
        source = (root / "stages" / paper / "paper.yaml").read_text(encoding="utf-8")
        claims = {c["id"]: c for c in YAML(typ="safe", pure=True).load(source)["claims"]}
        judged = judgements(path) if path.exists() else {}
        unknown = sorted(set(judged) - set(claims))
        if unknown:
            raise InputError(
                path,
                "judges claims that paper.yaml does not have",
                expected=f"some of {', '.join(claims)}",
                found=", ".join(unknown),
                remedy="run the stage that writes it (dvc repro)",
            )
        counts[paper] = dict.fromkeys((_key(verdict) for verdict in VERDICTS), 0)
        for name, claim in claims.items():
            detail = judged.get(name, {})
            verdict = detail.get("verdict", "not run")
            if verdict not in VERDICTS:
                raise InputError(
                    path,
                    f"{name} has an unknown verdict",
                    expected=", ".join(VERDICTS),
                    found=verdict,
                    remedy="run the stage that writes it (dvc repro)",
                )
            counts[paper][_key(verdict)] += 1
            everything.append(
                {
                    "paper": paper,
                    "id": name,
                    "verdict": verdict,
                    "statement": claim["statement"],
                    **{key: detail.get(key) for key in ("effect", "lo", "hi", "unit")},
                }
            )
    keys = [_key(verdict) for verdict in VERDICTS]
    total = {key: sum(c[key] for c in counts.values()) for key in keys}
    return {"papers": counts, "total": total, "all": everything}


def judgements(path: Path) -> dict[str, dict[str, Any]]:
    """Read the details of a claims.json: claim -> what was judged of it.

    Raises
    ------
    InputError
        If the file is missing or damaged, or has other details.
    """
    details = read_json(path)["details"]
    whole = isinstance(details, list) and all(isinstance(d, dict) for d in details)
    numbers = [d.get(key) for d in details for key in ("effect", "lo", "hi")] if whole else []
    if not whole or any(not isinstance(v, int | float | None) for v in numbers):
        raise InputError(
            path,
            "has the wrong layout",
            expected="details, a list of maps, in which effect, lo and hi are numbers or null",
            found=shown(details),
            remedy="run the stage that writes it (dvc repro)",
        )
    return {str(d["id"]): d for d in details}


def active_profile() -> str:
    """Return the profile that params.yaml names.

    Raises
    ------
    InputError
        If it names none that it has.
    """
    params = load_params()
    profile, known = params.get("profile"), params.get("profiles")
    known = known if isinstance(known, dict) else {}
    if profile not in list(known):
        raise InputError(
            PARAMS,
            "names no profile",
            expected=f"profile: one of {', '.join(map(str, known))}",
            found=shown(profile),
            remedy=suggestion(str(profile), list(map(str, known))),
        )
    return str(profile)


def _key(verdict: str) -> str:
    return verdict.replace(" ", "_")


def _effect(entry: dict[str, Any]) -> str:
    if entry["effect"] is None:
        return "-"
    shown = f"{entry['effect']:+.3g}"
    if entry["lo"] is not None and entry["hi"] is not None:
        shown += f" [{entry['lo']:+.3g}, {entry['hi']:+.3g}]"
    return shown


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def terminal_table(found: dict[str, Any], width: int) -> str:
    """Write one table a paper, with lines of at most ``width`` columns (at least 40)."""
    blocks = []
    for paper, counts in found["papers"].items():
        entries = [entry for entry in found["all"] if entry["paper"] == paper]
        shown = [(e["id"], e["verdict"], _effect(e), e["statement"]) for e in entries]
        wide = [max([*(len(row[i]) for row in shown), 0]) for i in range(3)]
        left = max(width, NARROWEST) - sum(wide) - 6
        lines = [f"{paper}: " + ", ".join(f"{counts[_key(v)]} {v}" for v in VERDICTS)]
        for row in shown:
            line = "  ".join(cell.ljust(wide[i]) for i, cell in enumerate(row[:3]))
            statement = _cut(" ".join(row[3].split()), left) if left > 8 else ""
            lines.append(_cut(f"{line}  {statement}".rstrip(), max(width, NARROWEST)))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) if blocks else "no paper has a paper.yaml"


def reports(profile: str, names: Sequence[str], root: Path = Path()) -> list[Path]:
    """Return the pages that exist, one a paper, and the index if there is one."""
    pages = [root / "reports" / "index.html"]
    pages += [root / "reports" / profile / f"{paper}.html" for paper in names]
    return [page for page in pages if page.exists()]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; exits with status 2 and one sentence if a result is bad."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.scoreboard.verdicts", description="The verdicts on all claims."
    )
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--profile", help="a key of profiles: in params.yaml; default: the active")
    parser.add_argument("--show", action="store_true", help="print only, write nothing")
    given = parser.parse_args(argv)
    with one_sentence(f"verdicts [{given.profile or 'the active profile'}]"):
        profile = given.profile or active_profile()
        results = given.results or Path("reports") / "results" / profile
        out = given.out or results / "verdicts.json"
        found = collect(results)
        print(terminal_table(found, shutil.get_terminal_size((100, 24)).columns))
        if not given.show:
            write_json(out, found)
            print(f"\nwrote {out}")
    pages = reports(profile, list(found["papers"]))
    print("\nreports:")
    print("\n".join(f"  {page}" for page in pages) or "  none yet")


if __name__ == "__main__":
    main()
