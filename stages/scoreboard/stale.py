"""Which results are no longer what the present code and parameters would make, by the locks.

DVC's own status needs DVC and sees the active profile alone. This reads dvc.lock: each stage that
ran left there the hashes of its code and data and the values of its parameters.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from stages.common.errors import InputError

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is 20 times as fast


def read_lock(path: Path) -> dict[str, Any]:
    """Return the stages of a dvc.lock: name -> {cmd, deps, params, outs}; {} if there is none.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 a safe loader
        return dict(content["stages"])
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            path,
            "is not a readable lock",
            expected="YAML with a map 'stages'",
            found=" ".join(str(error).split()) or type(error).__name__,
            remedy="restore it from git, then run dvc repro",
        ) from error


def _same(locked: object, now: object) -> bool:
    """Compare values; YAML 1.1 reads 7e-07 as words, YAML 1.2 as a number."""
    if isinstance(locked, Mapping) and isinstance(now, Mapping):
        return locked.keys() == now.keys() and all(_same(v, now[k]) for k, v in locked.items())
    if isinstance(locked, list) and isinstance(now, list):
        return len(locked) == len(now) and all(map(_same, locked, now))
    if isinstance(locked, str) and isinstance(now, float):
        try:
            return float(locked) == now
        except ValueError:
            return False
    return locked == now


def _lookup(params: Mapping, name: str) -> tuple[bool, Any]:
    here: Any = params
    for key in name.split("."):
        if not isinstance(here, Mapping) or key not in here:
            return False, None
        here = here[key]
    return True, here


def _md5(path: Path) -> str | None:
    """Hash a file or a folder as DVC does; None if there is neither."""
    if path.is_dir():
        files = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
        listed = [{"md5": _md5(path / name), "relpath": name} for name in files]
        return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _unfetched(path: str, root: Path) -> bool:
    """Tell data that a fresh clone does not have yet, which says nothing."""
    return path.split("/")[0] == "data" and not (root / path).exists()


def _changes(entry: Mapping, params: Mapping, made: Mapping[str, str], root: Path) -> Iterator[str]:
    """Yield what differs between a lock entry and the present, in words."""
    for name, locked in entry.get("params", {}).get("params.yaml", {}).items():
        if not _same(locked, _lookup(params, name)[1]):
            yield f"parameters {name}"
    for dep in entry.get("deps", []):
        path = dep["path"]
        if path in made:
            if made[path] != dep["md5"]:
                yield path
        elif path.startswith("artifacts/") or _unfetched(path, root):
            continue  # of a folder above several outs the lock does not say whose it was
        elif _md5(root / path) != dep["md5"]:
            yield path
    for out in entry.get("outs", []):
        path = out["path"]
        if path.startswith("reports/") and _md5(root / path) != out["md5"]:
            yield f"{path} itself"


def stale(profile: str, paper: str, params: Mapping, root: Path = Path()) -> dict[str, list[str]]:
    """Return the stages of a paper whose results are not current: name -> what has changed.

    A stage is named as DVC does, without its profile: ``train@bn``. One whose parameters are no
    longer in params.yaml (a removed variant) does not count.

    Parameters
    ----------
    params : params.yaml as :func:`stages.common.params.load_params` reads it.

    Raises
    ------
    InputError
        If a lock is damaged.
    """
    locks = read_lock(root / "stages" / paper / "dvc.lock")
    entries = {
        name: entry
        for name, entry in locks.items()
        if "@" in name and name.split("@")[1].split("-")[0] == profile
        if all(
            _lookup(params, key)[0]
            for key in entry.get("params", {}).get("params.yaml", {})
            if ".variants." in key
        )
    }
    made = {out["path"]: out["md5"] for entry in entries.values() for out in entry.get("outs", [])}
    found = {}
    for name, entry in entries.items():
        changed = sorted(set(_changes(entry, params, made, root)))
        if changed:
            verb, _, cell = name.partition("@")
            variant = cell.removeprefix(profile).lstrip("-")
            found[f"{verb}@{variant}" if variant else verb] = changed
    return dict(sorted(found.items()))
