"""Write docs/findings.md from its template, so that no number and no verdict in it can be wrong.

``python -m stages.scoreboard.findings`` fills docs/findings.md.j2. Every number comes from the
results of the profile ``embedded``, reports/reference, paper.yaml or params.yaml. A sentence that
states a direction is guarded: ``says`` names the verdicts and ``require`` the inequality that it
rests on, and where they no longer hold nothing is written. A test compares page and template.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError
from ruamel.yaml import YAML

from stages.common.errors import InputError, suggestion
from stages.common.files import read_json, write_text
from stages.common.params import load_params
from stages.scoreboard.verdicts import VERDICTS

TEMPLATE, PAGE = Path("docs/findings.md.j2"), Path("docs/findings.md")
RESULTS, REFERENCE = Path("reports/results/embedded"), Path("reports/reference")
STEP = re.compile(r"([^.\[\]]+)(?:\[([^\]]*)\])?(?:\.|$)")
REMEDY = f"mend the sentence in {TEMPLATE}, then run python -m stages.scoreboard.findings"


def find(content: Any, keys: str, where: str) -> Any:
    """Follow ``keys`` into JSON: "a.b", and "rows[scheme=plain,attack=itn].ssim" in a list of maps.

    Raises
    ------
    InputError
        If a key does not exist, or not exactly one item of a list fits.
    """
    here = content
    for key, condition in STEP.findall(keys):
        if not isinstance(here, Mapping) or key not in here:
            known = [str(k) for k in here] if isinstance(here, Mapping) else []
            raise InputError(
                where, f"has no {keys!r}", expected=f"the key {key!r}", found=f"{len(known)} keys",
                remedy=suggestion(key, known) if known else REMEDY,
            )  # fmt: skip
        here = here[key]
        if condition:
            wanted = dict(pair.split("=", 1) for pair in condition.split(","))
            fits = [i for i in here if all(str(i.get(k)) == v for k, v in wanted.items())]
            if len(fits) != 1:
                raise InputError(
                    where, f"has no single {keys!r}", expected=f"one item with {condition}",
                    found=len(fits), remedy=REMEDY,
                )  # fmt: skip
            here = fits[0]
    return here


def written(value: int | float, form: str, times: int | float = 1) -> str:
    """Write a number with a format of Python's, a true minus and no minus before 0."""
    shown = format(value * times if times != 1 else value, form)
    if not re.search(r"[1-9]", shown.split("e")[0]):
        shown = shown.lstrip("-")
    return shown.replace("-", "−")


class Sources:
    """What a template may ask for; every method is a function of it by the same name.

    Parameters
    ----------
    results, reference : folders of JSON; "paper/file.json a.b" names a number in the first.
    params : params.yaml.
    papers : paper -> paper.yaml.
    """

    def __init__(self, results: Path, reference: Path, params: Mapping, papers: Mapping):
        self.results, self.reference = results, reference
        self.params, self.papers = params, papers
        self.findings = {
            paper: {d["id"]: d for d in read_json(results / paper / "claims.json")["details"]}
            for paper in papers
        }

    def functions(self) -> dict[str, Callable]:
        """Return the template's functions."""
        names = "value num ci of_reference param printed setting constant effect part tally claims"
        own = {name: getattr(self, name) for name in [*names.split(), "says", "require"]}
        return {**own, "show": written}

    def value(self, name: str) -> Any:
        """Return what "paper/file.json a.b" of the results holds, to compare or to count."""
        file, keys = name.split(" ", 1)
        return find(read_json(self.results / file), keys, file)

    def num(self, name: str, form: str, times: int | float = 1) -> str:
        """Write a number of the results."""
        return written(self.value(name), form, times)

    def ci(self, name: str, form: str, times: int | float = 1) -> str:
        """Write a number with its interval: beside "a" stand "a_ci" or, in a map, lo and hi."""
        value = self.value(name)
        if isinstance(value, Mapping):
            lo, hi = value["lo"], value["hi"]
            value = value["value" if "value" in value else "mean"]
        else:
            lo, hi = self.value(f"{name}_ci")
        inner = ", ".join(written(v, form, times) for v in (lo, hi))
        return f"{written(value, form, times)} [{inner}]"

    def of_reference(self, name: str, form: str | None = None, times: int | float = 1) -> Any:
        """Write "file.json a.b" of reports/reference, or return it where no format is given."""
        file, keys = name.split(" ", 1)
        value = find(read_json(self.reference / file), keys, file)
        return value if form is None else written(value, form, times)

    def param(self, name: str) -> Any:
        """Return a parameter: "colourisation.train.lambda_l1"."""
        return find(self.params, name, "params.yaml")

    def printed(self, paper: str, cell: str, metric: str, form: str | None = None) -> Any:
        """Write a number that the paper prints, by the id and metric of its cell in paper.yaml."""
        keys = f"cells[id={cell},metric={metric}].paper"
        value = find(self.papers[paper], keys, f"stages/{paper}/paper.yaml")
        return value if form is None else written(value, form)

    def setting(self, paper: str, key: str) -> Any:
        """Return what a paper worked on, of paper.yaml."""
        return find(self.papers[paper], f"setting.{key}", f"stages/{paper}/paper.yaml")

    def constant(self, paper: str, claim: str, name: str) -> int | float:
        """Return a constant of a claim's test, of paper.yaml."""
        keys = f"claims[id={claim}].numbers.{name}"
        return find(self.papers[paper], keys, f"stages/{paper}/paper.yaml")

    def _finding(self, paper: str, claim: str) -> Mapping[str, Any]:
        return find(self.findings[paper], claim, f"{paper}/claims.json")

    def verdict(self, paper: str, claim: str) -> str:
        """Return the verdict on a claim."""
        return self._finding(paper, claim)["verdict"]

    def effect(self, paper: str, claim: str) -> str:
        """Write the effect of a claim's weakest part with its interval and unit; a dash: none."""
        return _effect(self._finding(paper, claim), self._finding(paper, claim)["unit"])

    def part(self, paper: str, claim: str, name: str, key: str | None = None) -> Any:
        """Write the effect of one part of a claim; or return its ``key`` (effect, verdict, ...)."""
        parts = {p["name"]: p for p in self._finding(paper, claim)["parts"]}
        if name not in parts:
            raise InputError(
                f"{paper}/claims.json", f"claim {claim} has no such part", expected=name,
                found=f"{len(parts)} others", remedy=suggestion(name, list(parts)),
            )  # fmt: skip
        return _effect(parts[name], "") if key is None else parts[name][key]

    def tally(self, paper: str | None = None) -> str:
        """Count the verdicts of a paper, or of all: "4 supported, 5 contradicted, ..."."""
        chosen = self.findings.values() if paper is None else [self.findings[paper]]
        found = [d["verdict"] for details in chosen for d in details.values()]
        return f"{len(found)} claims: " + ", ".join(f"{found.count(v)} {v}" for v in VERDICTS)

    def claims(self, paper: str) -> str:
        """Write all claims of a paper as a table."""
        rows = ["| claim | what it says | verdict | effect [interval] |", "|---|---|---|---|"]
        for name, detail in self.findings[paper].items():
            cells = (name, detail["statement"], detail["verdict"], self.effect(paper, name))
            rows.append(f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |")
        return "\n".join(rows)

    def says(self, paper: str, verdict: str, *claims: str) -> str:
        """Go on if all these claims have this verdict; writes nothing.

        Raises
        ------
        InputError
            If one has another: the sentence that rests on it would be wrong.
        """
        for claim in claims:
            found = self.verdict(paper, claim)
            if verdict not in VERDICTS or found != verdict:
                raise InputError(
                    TEMPLATE, f"rests on claim {claim} of {paper}", expected=verdict, found=found,
                    remedy=REMEDY,
                )  # fmt: skip
        return ""

    def require(self, holds: bool, what: str) -> str:
        """Go on if an inequality between results holds; writes nothing.

        Raises
        ------
        InputError
            If it does not: the sentence that rests on it would be wrong.
        """
        if holds is not True:
            raise InputError(TEMPLATE, "rests on this", expected=what, found=holds, remedy=REMEDY)
        return ""


def _effect(found: Mapping[str, Any], unit: str) -> str:
    if found["effect"] is None:
        return "–"
    shown = written(found["effect"], "+.3g" if found["lo"] is not None else ".3g")
    if found["lo"] is not None:
        shown += f" [{written(found['lo'], '+.3g')}, {written(found['hi'], '+.3g')}]"
    return f"{shown} {unit}".strip()


def rendered(template: str, sources: Sources) -> str:
    """Return the page.

    Raises
    ------
    InputError
        If a number is missing, a guard does not hold, or the template is damaged.
    """
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        extensions=["jinja2.ext.do"],
    )
    try:
        page = environment.from_string(template).render(sources.functions())
    except TemplateError as error:
        raise InputError(
            TEMPLATE, "cannot be filled", expected="a Jinja template with known functions",
            found=str(error), remedy="mend it",
        ) from error  # fmt: skip
    return re.sub(r"[ \t]+\n", "\n", page)


def sources(results: Path = RESULTS) -> Sources:
    """Return the sources of this repository."""
    yaml = YAML(typ="safe", pure=True)
    papers = {
        path.parent.name: yaml.load(path.read_text(encoding="utf-8"))
        for path in sorted(Path("stages").glob("*/paper.yaml"))
        if (results / path.parent.name / "claims.json").exists()
    }
    return Sources(results, REFERENCE, load_params(), papers)


if __name__ == "__main__":
    try:
        write_text(PAGE, rendered(TEMPLATE.read_text(encoding="utf-8"), sources()))
    except InputError as error:
        sys.exit(f"error: findings: {error}")
