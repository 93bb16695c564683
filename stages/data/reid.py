"""Person re-identification sets from folders of the user, as reid_layouts.yaml describes them.

Market-1501, DukeMTMC-reID and MSMT17 are described; a set of one's own needs an entry there. These
sets show identifiable people: nothing is downloaded, and who reads them answers for the terms.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8
from ruamel.yaml import YAML

from stages.common.errors import InputError, suggestion
from stages.data.fingerprint import HELP
from stages.data.folder import SUFFIXES, find_root
from stages.data.mat5 import refuse_inflated
from stages.data.photo import _bad as bad_photo
from stages.data.photo import _decode as decode_photo
from stages.data.pool import ordered_map

LAYOUTS = Path(__file__).with_name("reid_layouts.yaml")
SPLITS = ("train", "test")
DIGITS = 9  # of an identity, at most
Annotations = dict[int, dict[str, str]]  # identity -> task or colour column -> value


@dataclass(frozen=True)
class Crop:
    """One image file: identity (0: a distractor), camera, and whether it is a query."""

    path: Path
    pid: int
    camid: int
    query: bool


@dataclass(frozen=True, eq=False)
class ReidSplit:
    """One split of a set; of ``test`` the queries come first, then the gallery.

    images : RGB, 0..255.
    pids : identity, from 1; 0: a distractor, an image of no known person.
    camids : camera.
    query : all False in ``train``.
    junk : how many images were left out as junk.
    """

    images: UInt8[np.ndarray, "n h w 3"]
    pids: Int64[np.ndarray, " n"]
    camids: Int64[np.ndarray, " n"]
    query: Bool[np.ndarray, " n"]
    junk: int


def layouts() -> dict[str, dict]:
    """Read reid_layouts.yaml: name of a set -> its layout."""
    return YAML(typ="safe", pure=True).load(LAYOUTS.read_text(encoding="utf-8"))


class ReidFolder:
    """A set in a folder.

    Parameters
    ----------
    name : a key of reid_layouts.yaml.
    root : the folder; default: $<NAME>_ROOT, else real/<name>.

    Raises
    ------
    InputError
        If the name is unknown or the folder is not there.
    """

    def __init__(self, name: str, root: Path | None = None):
        known = layouts()
        if name not in known:
            raise InputError(
                name,
                "is not a known re-identification set",
                expected=" or ".join(known),
                found=repr(name),
                remedy=f"{suggestion(name, list(known))} or describe it in {LAYOUTS.name}",
            )
        self.name, self.layout = name, known[name]
        self.root = root or find_root(name)

    def crops(self, split: str) -> tuple[list[Crop], int]:
        """Return a split's image files, and how many were left out as junk.

        Identities that lists number from 0 get numbers from 1, those of the test lists after those
        of the training list: MSMT17 uses 0, 1, ... for different people in both.

        Raises
        ------
        InputError
            If a folder or list is missing or empty, or a file name is not the layout's.
        """
        if split not in SPLITS:
            raise InputError(
                f"{self.name}/{split}",
                "is not a split of this set",
                expected=" or ".join(SPLITS),
                found=repr(split),
                remedy=suggestion(split, SPLITS),
            )
        parts = ("train",) if split == "train" else ("query", "gallery")
        listed = "list" in self.layout["train"]
        first = 1 if listed else 0
        if listed and split == "test":
            first += 1 + max(crop.pid for crop in self._part("train"))
        crops, junk = [], 0
        for part in parts:
            for crop in self._part(part):
                if crop.pid == self.layout.get("junk"):
                    junk += 1
                    continue
                distractor = not listed and crop.pid == self.layout.get("distractor")
                pid = 0 if distractor else crop.pid + first
                if pid < 1 and not (distractor and part == "gallery"):
                    raise self._wrong(crop.path, "has no identity", "a person's number", crop.pid)
                crops.append(Crop(crop.path, pid, crop.camid, part == "query"))
        return crops, junk

    def read(self, split: str, *, height: int, width: int) -> ReidSplit:
        """Read a split at ``height`` x ``width``: area interpolation to shrink, cubic to enlarge.

        Raises
        ------
        InputError
            As :meth:`crops`, and if an image cannot be read.
        """
        crops, junk = self.crops(split)
        images = np.empty((len(crops), height, width, 3), np.uint8)
        work = partial(read_crop, height=height, width=width)
        title = f"decode {self.name}-{split}"
        for i, image in enumerate(ordered_map(work, [c.path for c in crops], title=title)):
            images[i] = image
        return ReidSplit(
            images=images,
            pids=np.array([c.pid for c in crops], np.int64),
            camids=np.array([c.camid for c in crops], np.int64),
            query=np.array([c.query for c in crops], bool),
            junk=junk,
        )

    def annotations(self) -> Annotations:
        """Read the attributes of identities of both splits.

        Raises
        ------
        InputError
            If there is no file of them, or it has another layout.
        """
        names = self.layout.get("attributes", [])
        for name in names:
            path = self.root / name
            if path.is_file():
                read = read_mat if path.suffix == ".mat" else read_csv
                return read(path, self.layout.get("classes", {}))
        raise self._wrong(
            self.root, "has no attributes", " or ".join(names) or "a set with attributes", "no such"
        )

    def _part(self, part: str) -> Iterator[Crop]:
        where = self.layout[part]
        folders = [self.root / name for name in where["folders"]]
        folder = next((f for f in folders if f.is_dir()), None)
        if folder is None:
            wanted = " or ".join(f"{f.name}/" for f in folders)
            raise self._wrong(self.root, f"has no {part} images", wanted, "no such folder")
        found = self._listed(folder, where["list"]) if "list" in where else self._named(folder)
        if not found:
            raise self._wrong(folder, "holds no images", f"{', '.join(SUFFIXES)} files", "none")
        for path, pid in found:
            match = re.match(self.layout["file"], path.name)
            if not match:
                raise self._wrong(
                    path, f"is not named as in {self.name}", self.layout["file"], path.name
                )
            number = int(match["pid"]) if pid is None else pid
            yield Crop(path, number, int(match["camid"]), part == "query")

    def _named(self, folder: Path) -> list[tuple[Path, int | None]]:
        paths = sorted(folder.iterdir())
        visible = [p for p in paths if not p.name.startswith(".")]
        return [(p, None) for p in visible if p.name.lower().endswith(SUFFIXES)]

    def _listed(self, folder: Path, name: str) -> list[tuple[Path, int | None]]:
        path = self.root / name
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong(path, "cannot be read", "a list of images", error) from error
        found = []
        for number, line in enumerate(lines, 1):
            file, _, pid = line.strip().rpartition(" ")
            inside = file and not Path(file).is_absolute() and ".." not in Path(file).parts
            if not (inside and pid.isdecimal() and len(pid) <= DIGITS):
                where = f"{path}, line {number}"
                raise self._wrong(where, "is no image", "<path> <identity>", repr(line))
            found.append((folder / file, int(pid)))
        return found

    def _wrong(self, where: Path | str, what: str, expected: str, found: object) -> InputError:
        remedy = f"restore the folder of {self.name}, {HELP}"
        return InputError(where, what, expected=expected, found=found, remedy=remedy)


def read_crop(path: Path, *, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Read a JPEG or PNG at ``height`` x ``width``; the aspect is not kept.

    Raises
    ------
    InputError
        If the file cannot be read or is no 8-bit image, as ``stages.data.photo``.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise bad_photo(
            path, "cannot be read", getattr(error, "strerror", None) or error
        ) from error
    if not content:
        raise bad_photo(path, "is empty", "0 bytes")
    pixels, _ = decode_photo(path, content, False)
    if pixels.shape[:2] == (height, width):
        return pixels
    smaller = height <= pixels.shape[0] and width <= pixels.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def read_mat(path: Path, classes: Mapping[str, list[str]]) -> Annotations:
    """Read Market's layout: a struct with ``train`` and ``test``, each with a column a field.

    ``image_index`` are the identities (strings such as '0002'), values are 1, 2, ...; a task's
    values are replaced by their names in ``classes``.

    Raises
    ------
    InputError
        If the file has another layout, or an identity twice.
    """
    from scipy.io import loadmat

    rows: Annotations = {}
    try:
        content = path.read_bytes()
        refuse_inflated(content)
        found = loadmat(io.BytesIO(content), squeeze_me=True, struct_as_record=False)
        (whole,) = (value for key, value in found.items() if not key.startswith("__"))
        for split in SPLITS:
            part = getattr(whole, split)
            pids = [int(pid) for pid in np.atleast_1d(part.image_index)]
            columns = {
                task: np.atleast_1d(getattr(part, task))
                for task in part._fieldnames
                if task != "image_index"
            }
            for i, pid in enumerate(pids):
                row = {t: _named_value(v[i], classes.get(t, [])) for t, v in columns.items()}
                _add(rows, pid, row, path)
            if any(len(values) != len(pids) for values in columns.values()):
                raise IndexError(f"columns of other lengths than {len(pids)} identities")
    except InputError:
        raise
    except Exception as e:  # loadmat, and the search for a field, raise many kinds
        raise _bad_attributes(
            path, "a struct with train and test, as market_attribute.mat", e
        ) from e
    return rows


def read_csv(path: Path, classes: Mapping[str, list[str]]) -> Annotations:
    """Read a .csv: a column ``identity``, and one a task; a cell is a class's name, or its number.

    A number 1, 2, ... of a task in ``classes`` is replaced by its name. An empty cell stays empty.

    Raises
    ------
    InputError
        If the file has no such columns, or an identity twice.
    """
    rows: Annotations = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            for line in reader:
                if None in line or None in line.values():
                    raise ValueError(f"line {reader.line_num} of another length than the first")
                cells = {str(k).strip(): v.strip() for k, v in line.items()}
                pid = int(cells.pop("identity"))
                row = {
                    t: _named_value(int(v), classes.get(t, [])) if v.isdecimal() else v
                    for t, v in cells.items()
                }
                _add(rows, pid, row, path)
    except InputError:
        raise
    except KeyError as error:
        raise _bad_attributes(path, "a column identity", "no such column") from error
    except (OSError, ValueError, csv.Error) as error:
        raise _bad_attributes(path, "columns identity and tasks", error) from error
    if not rows or not next(iter(rows.values())):
        raise _bad_attributes(path, "columns identity and tasks", f"{len(rows)} lines, no task")
    return rows


def _named_value(value, names: list[str]) -> str:
    number = int(value)
    return names[number - 1] if 1 <= number <= len(names) else str(number)


def _add(rows: Annotations, pid: int, row: dict[str, str], path: Path) -> None:
    if pid in rows:
        raise _bad_attributes(path, "each identity once", f"{pid} twice")
    rows[pid] = row


def _bad_attributes(path: Path, expected: str, found: object) -> InputError:
    return InputError(
        path,
        "is not a readable file of attributes",
        expected=expected,
        found=" ".join(str(found).split()) or type(found).__name__,
        remedy=f"restore it, {HELP}",
    )
