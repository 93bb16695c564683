"""Fill docs/reliability.md with what was measured; ``python -m stages.scoreboard.reliability``.

The figures stand in reports/reliability/*.json, written by the scripts in tests/reliability. A
block of the page lies between the lines ``<!-- kills:begin -->`` and ``<!-- kills:end -->``; what
has not been measured yet says so.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.common.errors import InputError
from stages.common.files import read_json, write_text
from stages.scoreboard.blocks import filled
from stages.scoreboard.rerun import TOLERANCE

PAGE = Path("docs") / "reliability.md"
MEASURED = Path("reports") / "reliability"
TROUBLES = {
    "orphans": "processes that lived on",
    "damaged": "finished files that were not whole",
    "lost": "finished stages that were lost",
    "repeated": "finished stages that ran again",
    "blocked": "runs that could not go on",
    "differences": "files that differ at the end",
}


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def kills(found: dict[str, Any]) -> str:
    """Return what came of killing the pipeline."""
    hits, inside = found["hits"], found["inside"]
    starter = "`make reproduce`" if found["forked"] else "DVC alone"
    lines = [
        f"{found['kills']} kills (SIGKILL, seed {found['seed']}) of `dvc repro` in profile"
        f" `{found['profile']}`, its stages started as {starter} starts them, in"
        f" {len(hits)} of its {found['stages']} stages:"
        f" {inside.get('stage', 0)} while a stage ran, {inside.get('dvc', 0)} while DVC hashed,"
        f" cached or wrote a lock; {found['how'].get('dvc', 0)} hit DVC alone,"
        f" {found['how'].get('stage', 0)} the stage alone, {found['how'].get('group', 0)} the"
        f" process group. {found['moments'].get('checkpoint', 0)} fell on the writing of a"
        f" checkpoint, {found['moments'].get('out', 0)} of an out,"
        f" {found['moments'].get('lock', 0)} of a lock. {found['compared']} outs and files were"
        f" compared with the run that nobody disturbed. {found['seconds'] / 60:.0f} minutes.",
        "",
        "| what could have gone wrong | times |",
        "|---|---|",
        *(f"| {words} | {len(found[key])} |" for key, words in TROUBLES.items()),
        f"| locks that were cut off, and mended | {found['repaired_locks']} |",
        f"| lists of readers that were cut off, and removed | {found['removed_rwlocks']} |",
    ]
    return "\n".join(lines)


def faults(found: dict[str, Any]) -> str:
    """Return what each fault made the pipeline say."""
    lines = [
        f"{len(found['faults'])} faults, {len(found['failed'])} of which went otherwise than they"
        " should.",
        "",
        "| fault | brought about by | what is said | lost | finished afterwards |",
        "|---|---|---|---|---|",
    ]
    for told in found["faults"].values():
        if "not_tried" in told:
            lines.append(f"| {_cell(told['what'])} | not tried: {_cell(told['not_tried'])} | | | |")
            continue
        said = f"`{_cell(told['said'])}`" if told["said"] != "nothing" else "nothing"
        if told.get("make_verify"):
            said += f"; `make verify` says `{_cell(told['make_verify'])}`"
        lost = _cell("; ".join(told["lost"])) or "nothing"
        done = "yes" if told["finished_afterwards"] and not told["wrong"] else "no"
        lines.append(f"| {_cell(told['what'])} | {_cell(told['how'])} | {said} | {lost} | {done} |")
    return "\n".join(lines)


def fuzz(found: dict[str, Any]) -> str:
    """Return how often readers and parsers were fed with damaged input."""
    targets = found["targets"]
    total = {key: sum(of[key] for of in targets.values()) for key in ("executions", "failures")}
    lines = [
        f"{total['executions']:,} executions in {found['minutes']:.3g} minutes (seed"
        f" {found['seed']}), {total['failures']} failures.",
        "",
        "| reader | executions | failures |",
        "|---|---|---|",
        *(
            f"| `{name}` | {of['executions']:,} | {of['failures']} |"
            for name, of in sorted(targets.items())
        ),
    ]
    return "\n".join(lines)


def tolerance(found: dict[str, Any]) -> str:
    """Return how far trainings go apart on another instruction set."""
    lines = [
        f"`make verify` allows a median of {TOLERANCE}. Measured with {_cell(found['how'])}:",
        "",
        "| training | files with other bytes | median | largest | where |",
        "|---|---|---|---|---|",
    ]
    for name, of in found["trainings"].items():
        where = _cell(of["where"])
        lines.append(
            f"| `{name}` | {of['differ']} of {of['files']} | {of['median']:.2g} |"
            f" {of['largest']:.2g} | {where} |"
        )
    return "\n".join(lines)


BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "kills": ("kill.json", kills),
    "faults": ("faults.json", faults),
    "fuzz": ("fuzz.json", fuzz),
    "tolerance": ("tolerance.json", tolerance),
}


def rendered(text: str, measured: Path = MEASURED) -> str:
    """Return the page's text with every block filled.

    Raises
    ------
    InputError
        If the page has no place for a block, or a JSON lacks what a block tells.
    """
    for name, (file, write) in BLOCKS.items():
        path = measured / file
        try:
            block = write(read_json(path)) if path.exists() else "Not yet measured."
        except (TypeError, AttributeError) as error:  # a key that is not there is an InputError
            raise InputError(
                path,
                "is not what its script writes",
                expected="the figures of the page",
                found=f"{type(error).__name__}: {error}",
                remedy="run the script in tests/reliability again",
            ) from error
        text = filled(text, name, block, PAGE)
    return text


if __name__ == "__main__":
    try:
        write_text(PAGE, rendered(PAGE.read_text(encoding="utf-8")))
    except InputError as error:
        sys.exit(f"error: reliability: {error}")
