"""Hashes anew what DVC has noted: the files of every lock, the objects of a store.

DVC believes its own note of a file's hash as long as size and time of change are the same, and
does not verify a remote that is a folder; here every byte is read. A folder's hash is the MD5 of
the sorted list of its files' MD5s and names, as DVC defines it.
"""

import fnmatch
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.errors import InputError

REPRO = "run dvc repro"
RESTORE = "run the stage again (dvc repro) or restore it from git"


@dataclass(frozen=True)
class Entry:
    """One line of a lock: a file or folder that a stage read ("deps") or wrote ("outs")."""

    lock: str
    stage: str
    kind: str
    path: str
    md5: str
    size: int | None

    @property
    def maker(self) -> str:
        """The stage as ``dvc repro`` knows it, or the .dvc file."""
        lock = self.lock.removesuffix(".lock")
        return self.lock if lock == self.lock else f"{lock}.yaml:{self.stage}"


def locks(root: Path) -> list[Path]:
    """Return the pipeline's lock files and the .dvc files of versioned data."""
    found = [root / "dvc.lock", *root.glob("stages/*/dvc.lock"), *root.glob("*.dvc")]
    return sorted(path for path in found if path.is_file())


def parse(text: str, lock: str) -> list[Entry]:
    """Return what one lock or .dvc file lists.

    Raises
    ------
    InputError
        If it is cut off, or is not what DVC writes.
    """
    try:
        content = YAML(typ="safe", pure=True).load(text)
        if lock.endswith(".dvc"):
            listed = {"": {"outs": content["outs"]}}
        else:
            listed = content["stages"]
            for stage, parts in listed.items():
                if not parts["cmd"]:
                    raise KeyError(f"cmd of {stage}")
        entries = [
            (lock, stage, kind, item["path"], item["md5"], item.get("size"))
            for stage, parts in listed.items()
            for kind in ("deps", "outs")
            for item in parts.get(kind, [])
        ]
        for *_, md5, _ in entries:
            if not isinstance(md5, str):
                raise TypeError(f"md5 {md5}")
        return [Entry(*entry) for entry in entries]
    except (YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            lock,
            "is not what DVC writes",
            expected="stages with the md5 of each file they read and wrote",
            found=" ".join(f"{type(error).__name__}: {error}".split())[:200]
            if text.strip()
            else "an empty file",
            remedy=f"restore it (git checkout {lock})",
        ) from error


def read(path: Path, root: Path) -> list[Entry]:
    """Return what the lock at ``path`` lists; see :func:`parse`.

    Raises
    ------
    InputError
        If it cannot be read or is not what DVC writes.
    """
    lock = str(path.relative_to(root))
    try:
        return parse(path.read_text(encoding="utf-8"), lock)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            lock,
            "cannot be read",
            expected="UTF-8 text",
            found=error,
            remedy=f"restore it (git checkout {lock})",
        ) from error


def md5_file(path: Path) -> str:
    """Return the MD5 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def ignored(root: Path) -> list[str]:
    """Return the patterns of .dvcignore that hold for names anywhere."""
    path = root / ".dvcignore"
    lines = path.read_text(encoding="utf-8").split() if path.exists() else []
    return [line for line in lines if "/" not in line]


def files_below(folder: Path, skip: Iterable[str]) -> list[Path]:
    """Return all files in a folder and its folders, but for names that match ``skip``."""
    skip = list(skip)

    def wanted(path: Path) -> bool:
        parts = path.relative_to(folder).parts
        return not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in skip)

    return [path for path in sorted(folder.rglob("*")) if path.is_file() and wanted(path)]


def digest(path: Path, skip: Iterable[str] = ()) -> tuple[str, int]:
    """Return DVC's hash of a file or folder, and its size in bytes."""
    if path.is_file():
        return md5_file(path), path.stat().st_size
    files = files_below(path, skip)
    listed = sorted(
        ({"md5": md5_file(file), "relpath": file.relative_to(path).as_posix()} for file in files),
        key=lambda item: item["relpath"],
    )
    text = json.dumps(listed, sort_keys=True).encode()
    md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
    return f"{md5}.dir", sum(file.stat().st_size for file in files)


@dataclass(frozen=True)
class Rehashed:
    """What came of hashing all that locks list: one sentence for each thing that is wrong."""

    hashed: int
    absent: list[str]
    wrong: list[str]


def rehash(entries: Collection[Entry], root: Path) -> Rehashed:
    """Hash every path of ``entries`` below ``root`` and compare with the MD5 and size listed.

    An out that does not exist is absent, and so is a dep that some stage makes: the models of a
    profile that ran elsewhere. A dep that no stage makes must exist. Where the lock of one stage
    lists an out with another hash than the lock of a stage that read it, one of them is wrong
    even if the file is absent.
    """
    skip = ignored(root)
    now = cache(lambda name: digest(root / name, skip))
    outs = {entry.path: entry for entry in entries if entry.kind == "outs"}
    groups: dict[tuple, list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.kind, entry.path, entry.md5, entry.size), []).append(entry)
    absent, wrong, seen = set(), [], set()
    for (kind, path, md5, size), group in sorted(groups.items(), key=lambda item: str(item[0])):
        listed, own = (md5, size), outs.get(path)
        others = f" and {len(group) - 1} more" if len(group) > 1 else ""
        stages = f"{group[0].maker}{others}"
        if kind == "deps" and own is not None and own.md5 != md5:
            wrong.append(
                _sentence(path, f"is not what {stages} read", listed, (own.md5, own.size), REPRO)
            )
            continue
        made = _parts(path, outs)
        missing = [name for name in made or [path] if not (root / name).exists()]
        if missing and made:
            absent.update(missing)
        elif missing:
            wrong.append(_sentence(path, f"is gone, {stages} read it", listed, None, RESTORE))
        else:
            seen.add(path)
            if now(path)[0] != md5 or size not in (None, now(path)[1]):
                since = f"has changed since {stages} {'read' if kind == 'deps' else 'wrote'} it"
                wrong.append(_sentence(path, since, listed, now(path), RESTORE))
    return Rehashed(len(seen), sorted(absent), wrong)


def _parts(path: str, outs: Mapping[str, Any]) -> list[str]:
    """Return the outs that ``path`` is, lies in, or is made of; [] if no stage makes it."""
    parents = [str(parent) for parent in Path(path).parents]
    above = [name for name in (path, *parents) if name in outs]
    return above or [name for name in outs if name.startswith(f"{path}/")]


def _sentence(where: str, what: str, expected: tuple, found: tuple | None, remedy: str) -> str:
    def told(of: tuple | None) -> str:
        if of is None:
            return "nothing"
        return f"md5 {of[0]}" + (f", {of[1]} bytes" if of[1] is not None else "")

    return str(InputError(where, what, expected=told(expected), found=told(found), remedy=remedy))


def objects(store: Path) -> list[Path]:
    """Return the files of a DVC store (``files/md5``): <2 digits>/<30 digits>[.dir]."""
    return sorted(path for path in store.glob("[0-9a-f][0-9a-f]/*") if _is_object(path))


def _is_object(path: Path) -> bool:
    name = path.name.removesuffix(".dir")
    return path.is_file() and len(name) == 30 and all(c in "0123456789abcdef" for c in name)


def damaged(store: Path, remedy: str) -> list[str]:
    """Return a sentence for every object of a store that is not named by its bytes' hash."""
    wrong = []
    for path in objects(store):
        expected = path.parent.name + path.name.removesuffix(".dir")
        found = md5_file(path)
        if found != expected:
            error = InputError(
                path,
                "is damaged",
                expected=f"md5 {expected}",
                found=f"md5 {found}",
                remedy=remedy,
            )
            wrong.append(str(error))
    return wrong


def lacking(store: Path, wanted: Iterable[Entry]) -> list[str]:
    """Return a sentence for every object of ``wanted``, its files included, that a store lacks."""
    wrong = []
    for entry in wanted:
        names = [entry.md5]
        path = _object(store, entry.md5)
        if entry.md5.endswith(".dir") and path.is_file():
            try:
                names += [item["md5"] for item in json.loads(path.read_text(encoding="utf-8"))]
            except (ValueError, TypeError, KeyError):
                continue  # damaged: said by damaged()
        missing = [name for name in names if not _object(store, name).is_file()]
        if missing:
            error = InputError(
                store,
                f"lacks objects of {entry.path}",
                expected=f"{len(names)} that {entry.lock} lists",
                found=f"no {', '.join(missing[:3])}",
                remedy="restore them from git",
            )
            wrong.append(str(error))
    return wrong


def _object(store: Path, md5: str) -> Path:
    return store / md5[:2] / md5[2:]
