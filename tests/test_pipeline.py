"""The DAG against the code: deps are the imports, params are the keywords, results are in git."""

import copy
import importlib
import inspect
import json
import math
from pathlib import Path

import pytest
from imports import file_of, names_in
from ruamel.yaml import YAML

from stages.common.params import load_params, stage_params
from stages.scoreboard.verdicts import papers

# The frame and the wording of errors: no result depends on them.
FRAME = {"stages/common/errors.py", "stages/common/stage.py"}
PARAMS = load_params()
PIPELINES = [Path("dvc.yaml"), *sorted(Path("stages").glob("*/dvc.yaml"))]
PAPERS = papers()


def imports_in(source):
    ours = {file_of(name) for name in names_in(source) if name.startswith("stages.")}
    return ours - {None}


def source_of(file):
    if file.suffix != ".ipynb":
        return file.read_text(encoding="utf-8")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def needed(*files):
    """Return the files and all below ``stages`` that they import, __init__.py files left out."""
    seen, todo = set(), list(files)
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo.extend(imports_in(source_of(here)))
    return {str(f) for f in seen if f.name != "__init__.py"} - FRAME


def _templates():
    for pipeline in PIPELINES:
        for name, stage in YAML(typ="safe").load(pipeline)["stages"].items():
            yield pytest.param(pipeline, name, stage, id=f"{pipeline.parent.name or 'root'}-{name}")


TEMPLATES = list(_templates())


@pytest.fixture(autouse=True)
def params_are_read_once(monkeypatch):
    """A quarter of a second each time, hundreds of times."""
    monkeypatch.setattr("stages.common.params.load_params", lambda path: copy.deepcopy(PARAMS))


def module_of(stage):
    words = stage["cmd"].split()
    return words[words.index("-m") + 1]


def verb_of(name):
    """Return the function of a stage: a control is the same one with other parameters."""
    return name.removesuffix("_control")


def axis_of(stage, name):
    """Return the values of one axis of a stage's matrix, which may be a list in params.yaml."""
    values = stage["matrix"][name]
    if values == ["${profile}"]:
        return [PARAMS["profile"]]
    if isinstance(values, list):
        return values
    here = PARAMS
    for key in values.removeprefix("${").removesuffix("}").split("."):
        here = here[key]
    return list(here)


def variants_of(stage):
    """Return the names after --variant: ${item.<axis>} and what is appended to it; [None]: none."""
    words = stage["cmd"].split()
    if "--variant" not in words:
        return [None]
    axis, end = words[words.index("--variant") + 1].removeprefix("${item.").split("}")
    return [f"{value}{end}" for value in axis_of(stage, axis)]


@pytest.mark.parametrize(("pipeline", "name", "stage"), TEMPLATES)
def test_deps_are_the_imports(pipeline, name, stage):
    notebooks = [Path(d) for d in stage["deps"] if d.endswith(".ipynb")]
    code = {d for d in stage["deps"] if d.endswith((".py", ".ipynb"))}
    assert code == needed(file_of(module_of(stage)), *notebooks)


@pytest.mark.parametrize(("pipeline", "name", "stage"), TEMPLATES)
def test_one_name_in_four_places(pipeline, name, stage):
    if pipeline == Path("dvc.yaml") or name == "report":
        return  # they run shared modules: the scoreboard's and common's
    paper = pipeline.parent.name
    name = verb_of(name)
    assert module_of(stage) == f"stages.{paper}.{name}"
    assert hasattr(importlib.import_module(module_of(stage)), name)
    assert name in PARAMS[paper] or any(name in p[paper] for p in PARAMS["profiles"].values())
    outs = [o if isinstance(o, str) else next(iter(o)) for o in stage["outs"]]
    stem = name.split("_")[0]
    assert all(f"/{paper}/{stem}" in o or o.startswith("reports/results") for o in outs)


@pytest.mark.parametrize(("pipeline", "name", "stage"), TEMPLATES)
def test_params_sections_are_those_that_the_function_reads(pipeline, name, stage):
    if pipeline == Path("dvc.yaml") or name == "report":
        return
    paper = pipeline.parent.name
    declared, name = set(stage["params"]), verb_of(name)
    profile = "profiles.${item.profile}"
    sections = {f"{paper}.shared", f"{profile}.{paper}.shared"}
    if name in PARAMS[paper]:
        sections.add(f"{paper}.{name}")
    if any(name in p[paper] for p in PARAMS["profiles"].values()):
        sections.add(f"{profile}.{paper}.{name}")
    if "--variant" in stage["cmd"]:
        words = stage["cmd"].split()
        sections.add(f"{paper}.variants.{words[words.index('--variant') + 1]}")
    function = getattr(importlib.import_module(module_of(stage)), name)
    if "variants" in inspect.signature(function).parameters:
        sections.add(f"{paper}.variants")
    assert declared == sections


@pytest.mark.parametrize("profile", PARAMS["profiles"])
@pytest.mark.parametrize("paper", PAPERS)
def test_every_stage_finds_its_parameters_in_every_profile(profile, paper):
    stages = YAML(typ="safe").load(Path("stages", paper, "dvc.yaml"))["stages"]
    for name, stage in stages.items():
        if name == "report":
            continue
        function = getattr(importlib.import_module(module_of(stage)), verb_of(name))
        for variant in variants_of(stage):
            stage_params(function, f"{paper}.{verb_of(name)}", profile=profile, variant=variant)


@pytest.mark.parametrize("profile", PARAMS["profiles"])
@pytest.mark.parametrize(("pipeline", "name", "stage"), TEMPLATES)
def test_every_profile_has_the_sections_that_a_stage_declares(profile, pipeline, name, stage):
    """DVC stops at a missing one."""
    for declared in stage.get("params", []):
        here = PARAMS
        name_of_section = declared.replace("${item.profile}", profile).split(".${")[0]
        for key in name_of_section.split("."):
            assert key in here, f"{declared} in {profile}"
            here = here[key]


@pytest.mark.parametrize("paper", PAPERS)
def test_every_shared_key_is_taken_by_some_stage(paper):
    stages = YAML(typ="safe").load(Path("stages", paper, "dvc.yaml"))["stages"]
    taken = set()
    for name, stage in stages.items():
        if name != "report":
            function = getattr(importlib.import_module(module_of(stage)), verb_of(name))
            code = function.__wrapped__.__code__ if hasattr(function, "__wrapped__") else None
            code = code or function.__code__
            taken |= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    shared = set(PARAMS[paper]["shared"])
    for profile in PARAMS["profiles"].values():
        shared |= set(profile[paper].get("shared", {}))
    assert shared <= taken


def test_expensive_stages_have_cached_outs_only():
    """A plain uncached out would switch DVC's run cache off for the stage."""
    for pipeline in PIPELINES:
        for name, stage in YAML(typ="safe").load(pipeline)["stages"].items():
            kinds = {isinstance(out, str) for out in stage["outs"]}
            assert len(kinds) == 1
            if name not in ("score", "report", "verdicts", "index"):
                assert kinds == {True}


def test_the_dag_stays_small():
    """DVC's cost grows with the stages; 30 a paper when expanded."""
    for paper in PAPERS:
        stages = YAML(typ="safe").load(Path("stages", paper, "dvc.yaml"))["stages"]
        expanded = [math.prod(len(axis_of(s, a)) for a in s["matrix"]) for s in stages.values()]
        assert min(expanded) >= 1 and sum(expanded) <= 30


def test_the_active_profile_is_the_embedded_one():
    assert PARAMS["profile"] == "embedded"


def test_results_hold_json_only():
    """Every file below a metrics directory is read as metrics by DVC."""
    assert {p.suffix for p in Path("reports/results").rglob("*") if p.is_file()} <= {".json"}


def shown_by_dvc(content, name, inside=False):
    """Count the scalars in the maps that name a variant, by a key or a value: what DVC shows."""
    here = inside or name in content.values()
    count = 0
    for key, value in content.items():
        if isinstance(value, dict):
            count += shown_by_dvc(value, name, here or key == name)
        elif here and value is not None and not isinstance(value, list):
            count += 1
    return count


@pytest.mark.parametrize("paper", PAPERS)
def test_dvc_metrics_shows_few_numbers_of_a_variant_under_short_names(paper):
    """At most 50: with the verdicts that it changes `dvc metrics diff` has at most 60 rows."""
    files = Path("reports/results/embedded", paper).glob("*.json")
    found = {path.stem: json.loads(path.read_text()) for path in files}
    variants = [
        name for name, content in found.items() if any(f"{k}_ci" in content for k in content)
    ]
    assert variants
    for name in variants:
        own = [k for k, v in found[name].items() if isinstance(v, (int, float, str))]
        assert max(map(len, own)) <= 30
        others = sum(shown_by_dvc(of, name) for table, of in found.items() if table != name)
        assert 0 < len(own) + others <= 50, name


def test_the_plots_are_the_figures_of_the_reports():
    """Images alone: a table (.csv) makes the page of `dvc plots diff` load scripts from the net."""
    declared = YAML(typ="safe").load(Path("dvc.yaml"))["plots"]
    figures = Path("reports/embedded").glob("*/*.png")
    assert declared == sorted(f"reports/${{profile}}/{f.parent.name}/{f.name}" for f in figures)
