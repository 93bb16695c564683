"""What a revision, or the working tree, says of one profile: its parameters and its results.

A side is named ``REV``, ``workspace``, ``REV:PROFILE`` or ``:PROFILE`` (of the working tree). It is
read by ``git ls-tree`` and ``git show``: the working tree is not touched.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError, suggestion

PARAMS, RESULTS = "params.yaml", "reports/results"
WORKSPACE = "workspace"
DEPTH = 5  # reports/results/<profile>/<paper>/<file>.json
Tree = Mapping[str, Callable[[], bytes]]  # path, with slashes -> its reader


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    name : as it was asked for, without the profile; commit : abbreviated, "" for the working tree.
    params : params.yaml whole; papers : paper -> name of a JSON file, without .json -> its content.
    """

    name: str
    commit: str
    profile: str
    params: Mapping[str, Any]
    papers: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def __str__(self) -> str:
        commit = f" ({self.commit})" if self.commit and self.commit != self.name else ""
        return f"{self.name}{commit}, profile {self.profile}"

    @property
    def short(self) -> str:
        """Return the name as one could ask for it."""
        return f"{self.name}:{self.profile}"


def _git(*args: str) -> bytes:
    """Return what git prints.

    Raises
    ------
    InputError
        If there is no git, or it fails.
    """
    try:
        return subprocess.run(["git", *args], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr if isinstance(error, subprocess.CalledProcessError) else error
        text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise InputError(
            f"git {' '.join(args)}",
            "fails",
            expected="git, and a clone of this repository with the history that is compared",
            found=" ".join(text.split()) or "no reason given",
            remedy="run it at the root of the clone; git fetch --unshallow if the history is cut",
        ) from error


def _commit(revision: str) -> str:
    """Return the hash of a commit."""
    _git("rev-parse", "--git-dir")  # what is missing is not the revision, if this fails
    try:
        verify = ("rev-parse", "--verify", "--quiet", "--end-of-options")
        return _git(*verify, f"{revision}^{{commit}}").decode().strip()
    except InputError as error:
        raise InputError(
            revision,
            "is not a revision of this repository",
            expected=f"a commit, a tag, a branch, or {WORKSPACE}",
            found="none of them",
            remedy="git log --oneline lists the commits, git tag the tags",
        ) from error


def _workspace() -> Tree:
    paths = [Path(PARAMS), *Path(RESULTS).glob("*/*/*.json")]
    return {path.as_posix(): path.read_bytes for path in sorted(paths) if path.is_file()}


def _revision(commit: str) -> Tree:
    listed = _git("ls-tree", "-r", "-z", "--name-only", commit, PARAMS, f"{RESULTS}/").decode()
    return {name: partial(_git, "show", f"{commit}:./{name}") for name in listed.split("\0")[:-1]}


def _damaged(where: str, what: str, expected: str, found: object) -> InputError:
    return InputError(
        where,
        f"is not {what}",
        expected=expected,
        found=found,
        remedy="run the stage that writes it (dvc repro), restore it from git, or compare another"
        " revision",
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name}, which is not JSON")


def _json(where: str, read: Callable[[], bytes]) -> dict[str, Any]:
    try:
        content = json.loads(read().decode(), parse_constant=_no_constant)
    except (OSError, ValueError) as error:
        raise _damaged(where, "a readable JSON file", "a JSON object", error) from error
    if not isinstance(content, dict):
        raise _damaged(
            where, "a readable JSON file", "a JSON object", f"a {type(content).__name__}"
        )
    return content


def _params(name: str, tree: Tree) -> dict[str, Any]:
    where, expected = f"{name}: {PARAMS}", "a map with 'profile' and 'profiles'"
    if PARAMS not in tree:
        raise _damaged(where, "there", expected, "no such file")
    try:
        content = YAML(typ="safe", pure=True).load(tree[PARAMS]().decode())
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise _damaged(where, "readable", expected, " ".join(str(error).split())) from error
    if not (isinstance(content, dict) and isinstance(content.get("profiles"), dict)):
        raise _damaged(where, "of this layout", expected, f"a {type(content).__name__}")
    return content


def active_profile() -> str:
    """Return the profile that params.yaml of the working tree names."""
    return str(_params(WORKSPACE, _workspace()).get("profile"))


def read_side(asked: str, active: str) -> Side:
    """Read one side of a comparison.

    Parameters
    ----------
    asked : "REV", "workspace", "REV:PROFILE" or ":PROFILE" (of the working tree).
    active : the profile where ``asked`` names none.

    Raises
    ------
    InputError
        If there is no such revision, or none of its profiles has this name; if it has no result of
        this profile; or if a file is damaged.
    """
    revision, _, profile = asked.partition(":")
    name, profile = revision or WORKSPACE, profile or active
    commit = "" if name == WORKSPACE else _commit(name)
    tree = _revision(commit) if commit else _workspace()
    params = _params(name, tree)
    if profile not in params["profiles"]:
        raise InputError(
            asked,
            f"{profile!r} is not a profile",
            expected=f"one of {PARAMS} in {name}",
            found=", ".join(map(str, params["profiles"])),
            remedy=suggestion(profile, [str(key) for key in params["profiles"]]),
        )
    results = [path for path in map(PurePosixPath, tree) if len(path.parts) == DEPTH]
    papers: dict[str, dict[str, dict[str, Any]]] = {}
    for path in results:
        if path.suffix == ".json" and path.parts[2] == profile:
            where = f"{name}: {path}"
            papers.setdefault(path.parts[3], {})[path.stem] = _json(where, tree[str(path)])
    if not papers:
        raise InputError(
            asked,
            f"has no results of profile {profile}",
            expected=f"{RESULTS}/{profile}/<paper>/*.json in {name}",
            found=", ".join(sorted({path.parts[2] for path in results})) or "no results at all",
            remedy="run the profile (dvc repro), or compare another revision or profile",
        )
    return Side(name, commit[:7], profile, params, papers)
