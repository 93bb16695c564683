"""Write the fingerprint of an image folder, so that results say what they were made from.

    python -m stages.data.register NAME FOLDER [--group REGEX] [--attribution TEXT]

Writes ``fingerprints/NAME.json``: number and bytes of the images, a hash over their names, sizes
and contents, the splits and classes. No path of this machine, no content. Commit it.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages.common.errors import InputError
from stages.common.files import read_json, sha256, write_json
from stages.common.stage import one_sentence
from stages.data import fingerprint
from stages.data.fingerprint import HELP, TORCHVISION, check_group
from stages.data.folder import content_hash, list_images, quick_summary
from stages.data.pool import ordered_map


def register(name: str, root: Path, group: str | None = None, attribution: str = "") -> Path:
    """Fingerprint the images below ``root`` as set ``name``; return the file written.

    Parameters
    ----------
    group : regular expression on the file's stem; images with the same match are one cluster in
        every bootstrap (several pictures of one face). Default: each image is its own.
    attribution : what reports say under the images: source and licence.

    Raises
    ------
    InputError
        If the name is taken or unusable, the pattern is wrong, or the folder is (``list_images``).
    """
    _check_name(name)
    check_group(group, "--group")
    entries = list_images(root)
    files = [root / entry.path for entry in entries]
    hashes = list(ordered_map(sha256, files, title=f"hash {name}"))
    splits = {}
    for split in sorted({entry.split for entry in entries}):
        here = [i for i, entry in enumerate(entries) if entry.split == split]
        members = [entries[i] for i in here]
        splits[split] = {
            **quick_summary(members),
            "sha256": content_hash(members, [hashes[i] for i in here]),
            "classes": dict(sorted(Counter(entry.label for entry in members).items())),
        }
    _check_classes(root, splits)
    content = {"kind": "folder", "group": group, "attribution": attribution, "splits": splits}
    content |= {**quick_summary(entries), "sha256": content_hash(entries, hashes)}
    path = fingerprint.FINGERPRINTS / f"{name}.json"
    write_json(path, content)
    return path


def _check_name(name: str) -> None:
    good = re.fullmatch(r"[a-z0-9][a-z0-9_-]{,63}", name) is not None
    path = fingerprint.FINGERPRINTS / f"{name}.json"
    built_in = good and path.is_file() and read_json(path)["kind"] == "embedded"
    if name in TORCHVISION or built_in or not good:
        raise InputError(
            name,
            "cannot name an image folder",
            expected="at most 64 lower-case letters, digits, - and _, and no built-in set's name",
            found="a built-in set's name" if name in TORCHVISION or built_in else repr(name),
            remedy=f"choose another name, {HELP}",
        )


def _check_classes(root: Path, splits: dict[str, dict]) -> None:
    first, *others = splits
    for other in others:
        odd = sorted(splits[first]["classes"].keys() ^ splits[other]["classes"].keys())
        if odd:
            raise InputError(
                root,
                f"has other classes in {other} than in {first}",
                expected="the same class folders in every split",
                found=f"only in one of them: {', '.join(odd[:5])}",
                remedy=HELP,
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line; if it fails, one sentence and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.data.register",
        description="Write the fingerprint of an image folder.",
    )
    parser.add_argument("name", help="name of the set, as in load_images")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--group", help="regular expression: images it matches alike are a cluster")
    parser.add_argument("--attribution", default="", help="source and licence, shown in reports")
    given = parser.parse_args(argv)
    with one_sentence("register"):
        print(register(given.name, given.folder, given.group, given.attribution))


if __name__ == "__main__":
    main()
