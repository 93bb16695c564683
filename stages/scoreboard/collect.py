"""Everything that the index shows, as one table: all papers, cells and claims, every profile.

The profile ``smoke`` only tells whether the stages run, so it is left out.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from stages.common.files import read_json
from stages.common.params import load_params, section
from stages.scoreboard.cells import KEYS, METRICS, cells
from stages.scoreboard.headlines import headline
from stages.scoreboard.stale import Loader, stale
from stages.scoreboard.verdicts import VERDICTS, papers

PROFILES = ("embedded", "gpu", "paper")  # the smallest first
RELEASED = Path("reports/reference/released.json")
JUDGED = ("verdict", "effect", "lo", "hi", "unit", "n", "seeds", "reason")
HARDWARE = ("machine", "cpus", "instruction_set", "threads", "gpu")


def hardware(folder: Path) -> str | None:
    """Say what a paper's stages ran on: the distinct facts of their provenance files."""
    found: dict[str, set[str]] = {key: set() for key in HARDWARE}
    for path in sorted(folder.glob("*.json")):
        facts = read_json(path)
        for key in HARDWARE:
            if facts.get(key) is not None:
                found[key].add(str(facts[key]))
    if not any(found.values()):
        return None
    words = []
    for key, values in found.items():
        shown = " or ".join(sorted(values, key=lambda v: (len(v), v)))
        if shown:
            words.append(f"{shown} CPUs" if key == "cpus" else
                         f"threads a process: {shown}" if key == "threads" else shown)  # fmt: skip
    return ", ".join(words)


def _profile(paper: str, profile: str, params: Mapping, root: Path) -> dict[str, Any] | None:
    """Return what a paper has in a profile; None if it has not run there."""
    folder = root / "reports" / "results" / profile / paper
    if not (folder / "claims.json").exists():
        return None
    judged = {e["id"]: e for e in read_json(folder / "claims.json")["details"]}
    own = section(params, f"profiles.{profile}.{paper}")
    sets = own.get("prepare", {})
    return {
        "headline": headline(paper, folder),
        "images": max((e["n"] for e in judged.values() if e.get("n")), default=None),
        "seeds": max((e["seeds"] for e in judged.values() if e.get("seeds")), default=None),
        "data": _sets({**params[paper].get("prepare", {}), **sets}),
        "hardware": hardware(root / "reports" / "provenance" / profile / paper),
        "stale": stale(profile, paper, params, root),
        "cells": {c["id"]: c for c in cells(paper, folder)},
        "claims": {name: {key: e.get(key) for key in JUDGED} for name, e in judged.items()},
    }


def _sets(prepare: Mapping[str, Any]) -> list[str]:
    """Name the image sets of a prepare section."""
    keys = ("dataset", "transfer_dataset", "attack_dataset", "faces", "multi", "proprietary")
    named = [prepare[key] for key in keys if isinstance(prepare.get(key), str)]
    return list(dict.fromkeys([*named, *prepare.get("local_sets", [])]))


def _merged(found: Iterable[Mapping[str, Any] | None], what: str) -> list[str]:
    """Return the ids of all profiles, in the order of the first that has them."""
    return list(dict.fromkeys(name for one in found if one for name in one[what]))


def scoreboard(root: Path = Path()) -> dict[str, Any]:
    """Collect the papers, their cells and claims, with the values of every profile that has run.

    Returns
    -------
    {"profiles": [...], "total": {verdict: count}, "papers": {name: {"paper", "profiles", "cells",
    "claims"}}}: a cell has "paper" (the printed value or None) and "ours" {profile: values or
    None}, a claim "statement", "source", "on_paper" and "ours" {profile: {"verdict", ...}}.
    ``total`` counts each paper in the largest profile that it has run in.

    Raises
    ------
    InputError
        If params.yaml, a lock or a result is damaged, or a result judges an unknown claim.
    """
    params = load_params(root / "params.yaml")
    content: dict[str, Any] = {}
    total = dict.fromkeys(VERDICTS, 0)
    used = set()
    for paper in papers(root):
        source = (root / "stages" / paper / "paper.yaml").read_text(encoding="utf-8")
        printed = yaml.load(source, Loader)
        found = {p: _profile(paper, p, params, root) for p in PROFILES if p in params["profiles"]}
        ran = [p for p in PROFILES if found.get(p)]
        used.update(ran)
        claims = []
        for claim in printed["claims"]:
            missing = dict.fromkeys(JUDGED) | {"verdict": "not run"}
            ours = {p: found[p]["claims"].get(claim["id"], missing) for p in ran}  # pyright: ignore
            claims.append(
                {
                    "id": claim["id"],
                    "statement": " ".join(claim["statement"].split()),
                    "source": claim.get("source"),
                    "on_paper": claim.get("table1"),
                    "ours": ours,
                }
            )
            best = ours[ran[-1]]["verdict"] if ran else "not run"
            total[best] += 1
        shown = []
        for name in _merged(found.values(), "cells"):
            values = {p: found[p]["cells"].get(name) for p in ran}  # pyright: ignore
            first = next(cell for cell in values.values() if cell)
            shown.append(
                {key: first[key] for key in ("id", "row", "metric", "kind", "paper")}
                | {"ours": {p: c and {k: c[k] for k in KEYS if k != "paper"}
                            for p, c in values.items()}}
            )  # fmt: skip
        content[paper] = {
            "paper": " ".join(printed["paper"].split()),
            "metrics": {m: list(head) for m, head in METRICS.get(paper, {}).items()},
            "profiles": {
                p: one and {k: v for k, v in one.items() if k not in ("cells", "claims")}
                for p, one in found.items()
            },
            "cells": shown,
            "claims": claims,
        }
    return {"profiles": [p for p in PROFILES if p in used], "total": total, "papers": content}


def differences(now: Mapping[str, Any], released: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from an earlier scoreboard: "paper/profile/id" -> what it was then.

    A value differs if its JSON differs. What the earlier one lacks is None; what only it has does
    not count.
    """
    found = {}
    for paper, content in now["papers"].items():
        then = released.get("papers", {}).get(paper, {})
        for what in ("cells", "claims"):
            earlier = {e["id"]: e["ours"] for e in then.get(what, [])}
            for entry in content[what]:
                for profile, value in entry["ours"].items():
                    was = earlier.get(entry["id"], {}).get(profile)
                    if value != was:
                        found[f"{paper}/{profile}/{entry['id']}"] = was
    return found
