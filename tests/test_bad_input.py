"""Wrong input of every kind, run as a user would run it: a status, one sentence, nothing touched.

``CASES`` is the table: what is wrong, the command or function that meets it, and what its sentence
must name. Every sentence says where, what, expected, found, and what to do.
"""

import copy
import importlib
import importlib.util
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.io import savemat

from stages.common import stage
from stages.common.checkpoints import Checkpoint
from stages.common.errors import InputError
from stages.common.files import write_json, write_npz
from stages.common.params import load_params
from stages.common.render import execute
from stages.data import fingerprint
from stages.data.embedded import write_split
from stages.data.register import register
from stages.data.reid import ReidFolder, read_csv, read_mat
from stages.deep_features.shufflebits.keys import BitKey, RequestRegister
from stages.deep_features.shufflebits.onnx_tail import with_tail
from stages.gan_transform.networks import VGG13, constant_normalisation
from stages.gan_transform.schemes import SPLITS, parse_scheme, write_scheme
from stages.sift_inversion import keypoints as stored
from stages.sift_inversion.extract import arrange
from stages.sift_inversion.models import build_coarse

# jupyter_client leaves its event loop to the garbage collector; nothing of ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
REPOSITORY = Path.cwd()
PARAMS = load_params()
SENTENCE = re.compile(r"error: [^\n]+: [^\n]+: expected [^\n]+, found [^\n]+; [^\n]+")
BAR = re.compile(r"^.*?\d+%\|.*$|^\d+(it|image|step|key|cell|file) \[.*$|^\s*$")
SIZE = 32  # of the images made here, pixels

Spoil = Callable[[Path], object]
Run = list[str] | Spoil


@dataclass(frozen=True)
class Case:
    """One wrong thing.

    spoil : writes it into an empty working folder; what ``run`` then does must change nothing.
    run : words of a command (module below ``stages`` and arguments), or a function of the folder.
    says : what the sentence must name.
    status : 2, or 3 where a training diverges.
    """

    name: str
    spoil: Spoil
    run: Run
    says: tuple[str, ...]
    status: int = 2


CASES: list[Case] = []


def case(name: str, spoil: Spoil, run: Run, *says: str, status: int = 2) -> None:
    CASES.append(Case(name, spoil, run, says, status))


def command(words: str, *more: str) -> list[str]:
    return [*words.split(), "--profile", "smoke", *more]


# ---------------------------------------------------------------- how things are spoilt


class Raw(str):
    """YAML that is written into params.yaml as it is."""


def params(paper: str = "colourisation", **changes) -> Spoil:
    """Write the smoke profile of one paper; a key is <section>__<key>, smoke__<section>__<key>."""

    def spoil(folder: Path) -> None:
        content = {
            "profile": "smoke",
            "profiles": {"smoke": {paper: copy.deepcopy(PARAMS["profiles"]["smoke"][paper])}},
            paper: copy.deepcopy(PARAMS[paper]),
        }
        raw = []
        for name, value in changes.items():
            *sections, key = name.split("__")
            here = content["profiles"]["smoke"] if sections[0] == "smoke" else content
            for section in [paper, *(s for s in sections if s != "smoke")]:
                here = here[section]
            if isinstance(value, Raw):
                raw.append(value)
                value = f"<{len(raw) - 1}>"
            here[key] = value
        text = json.dumps(content)
        for i, value in enumerate(raw):
            text = text.replace(f'"<{i}>"', value)
        (folder / "params.yaml").write_text(text)

    return spoil


def text(content: str | bytes, name: str = "params.yaml") -> Spoil:
    data = content.encode() if isinstance(content, str) else content

    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return spoil


def both(*spoils: Spoil) -> Spoil:
    return lambda folder: [spoil(folder) for spoil in spoils]


def nothing(folder: Path) -> None:
    """Spoil nothing: the command is wrong."""


def pixels(n: int | None = None, side: int = SIZE) -> np.ndarray:
    """Return ``n`` images of coarse noise, or one."""
    coarse = np.random.default_rng(0).integers(0, 256, (n or 1, -(-side // 4), -(-side // 4), 3))
    images = coarse.astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)[:, :side, :side]
    return images if n else images[0]


def images_npz(path: Path, n: int = 16, side: int = SIZE, **more) -> None:
    arrays = {"images": pixels(n, side), "labels": np.arange(n) % 2, "groups": np.arange(n)}
    write_npz(path, **arrays | more)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class Bomb:
    """Makes a folder "ran" when it is unpickled."""

    def __init__(self, beside: Path):
        self.mark = str(beside.parent / "ran")

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": Bomb(path)}))


def spoilt(index, value):
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


# ---------------------------------------------------------------- params.yaml

PREPARE = command("colourisation.prepare data out")
TRAIN = command("colourisation.train data out", "--variant", "bn")
OTHER = '{"profiles": {"smoke": {"colourisation": {}}}, "colourisation": %s}'
LAUGHS = ", ".join(  # 9^8 words in a few lines
    f"&{new} [{', '.join([old] * 9)}]"
    for old, new in zip(["x", *(f"*{c}" for c in "abcdefg")], "abcdefgh", strict=True)
)


def bad_params(name: str, spoil: Spoil, *says: str, run: Run = PREPARE) -> None:
    case(f"params-{name}", spoil, run, "params.yaml", *says)


def wrong(name: str, *says: str, run: Run = PREPARE, **changes) -> None:
    bad_params(name, params(**changes), *says, run=run)


# fmt: off
MISNAMED = '{"profiles": {"smoke": {"colorisation": {}}}, "colorisation": {}}'
bad_params(
    "unknown_paper", text(MISNAMED), "'profiles.smoke.colourisation'",
    "did you mean 'colorisation'?",
)
bad_params(
    "paper_without_section",
    text('{"profiles": {"smoke": {"colourisation": {}}}, "colorisation": {}}'),
    "did you mean 'colorisation'?",
)
bad_params("missing_key", text(OTHER % '{"prepare": {}, "shared": {}}'), "lacks the key 'dataset'")
bad_params(
    "section_that_is_a_number", text(OTHER % '{"prepare": 3, "shared": {}}'),
    "'colourisation.prepare'", "a map of keys", "found 3",
)
bad_params(
    "unknown_profile", params(), "smokey", "did you mean 'smoke'?", run=[*PREPARE[:-1], "smokey"],
)
bad_params(
    "unknown_variant", params(), "'bn_snn'", "did you mean 'bn_sn'?", run=[*TRAIN[:-1], "bn_snn"],
)
wrong("misspelled_key", "'n_trian'", "did you mean 'n_train'?", smoke__prepare__n_trian=48)
wrong(
    "misspelled_in_variant", "variants.bn", "did you mean 'norm'?", run=TRAIN,
    variants__bn={"nrom": "bn"},
)
wrong(
    "misspelled_shared_key", "smoke.colourisation.shared", "did you mean 'threads'?", run=TRAIN,
    smoke__shared__thread=2,
)
wrong("unknown_key", "'qqq'", "known: ", "dataset", prepare__qqq=1)
wrong(
    "string_for_number", "prepare.size", "a whole number from 1", "found '32'",
    smoke__prepare__size="32",
)
wrong("number_for_string", "dataset", "a string", "found 10", smoke__prepare__dataset=10)
wrong("bool_for_int", "size", "a whole number from 1", "found True", smoke__prepare__size=True)
wrong("yaml_1_1_bool", "hflip", "true or false", "found 'on'", run=TRAIN, train__hflip=Raw("on"))
wrong("float_for_int", "size", "a whole number from 1", "found 32.0", smoke__prepare__size=32.0)
wrong("map_for_number", "size", "found {'px': 32}", smoke__prepare__size={"px": 32})
wrong("null_for_number", "size", "found None", smoke__prepare__size=None)
wrong("negative_size", "size", "a whole number from 1", "found -32", smoke__prepare__size=-32)
wrong("zero_batch", "batch_size", "from 1 to", "found 0", run=TRAIN, smoke__train__batch_size=0)
wrong("nan", "train.lr", "a number above 0", "found nan", run=TRAIN, train__lr=Raw(".nan"))
wrong("inf", "lambda_l1", "found inf", run=TRAIN, train__lambda_l1=Raw(".inf"))
wrong("beta_of_1", "beta1", "a number from 0 to below 1", "found 1", run=TRAIN, train__beta1=1)
wrong(
    "unknown_choice", "variants.bn.norm", "'bn'", "found 'batch'", run=TRAIN,
    variants__bn__norm="batch",
)
wrong("number_for_list", "seeds", "a list", "found 0", run=TRAIN, smoke__shared__seeds=0)
wrong(
    "negative_in_list", "seeds", "from 0 to", "found [0, -1]", run=TRAIN,
    smoke__shared__seeds=[0, -1],
)
wrong("empty_list", "seeds", "one item or more", "found []", run=TRAIN, smoke__shared__seeds=[])
wrong(
    "seed_twice", "seeds", "every seed once", "found [3, 3]", run=TRAIN,
    smoke__shared__seeds=[3, 3],
)
wrong(
    "seed_of_100_bits", "seeds", "to 2147483647", f"[{2**100}]", run=TRAIN,
    smoke__shared__seeds=[2**100],
)
wrong("huge_number", "n_train", "to 2147483647", f"found {10**30}", smoke__prepare__n_train=10**30)
wrong("huge_rate", "lr", "a number above 0", "found 1000", run=TRAIN, train__lr=10**400)
wrong(
    "number_of_5000_digits", "cannot be read", "5000 digits", smoke__prepare__size=Raw("9" * 5000),
)
wrong(
    "number_of_5000_hexadecimal_digits", "size", "too many digits",
    smoke__prepare__size=Raw("0x" + "9" * 5000),
)
wrong(
    "duplicate_key", "every key once", 'duplicate key "size"',
    smoke__prepare__size=Raw('32, "size": 64'),
)
wrong("anchor_in_a_circle", "size", "found [[[[...]]]]", smoke__prepare__size=Raw("&a [*a]"))
wrong("a_billion_laughs", "size", "found [['x', 'x'", smoke__prepare__size=Raw(f"[{LAUGHS}]"))
wrong("impossible_date", "month must be in 1..12", smoke__prepare__size=Raw("2020-13-45"))
wrong("value_of_100000_letters", "size", "found 'xxx", smoke__prepare__size="x" * 100_000)
bad_params(
    "section_in_a_circle", text("profiles: &a {smoke: *a}\ncolourisation: *a\n"),
    "'profiles.smoke.colourisation'",
)
bad_params("list_at_the_top", text("- profiles\n- smoke\n"), "a map", "found a list")
bad_params("word_at_the_top", text("embedded"), "a map", "found a str")
bad_params("empty", text(""), "a map", "found a NoneType")
bad_params("two_documents", text("a: 1\n---\nb: 2\n"), "cannot be read", "single document")
bad_params("tab_as_indent", text("profiles:\n\tsmoke:\n\t\tcolourisation: {}\n"), "'\\t'", "line 2")
bad_params("unclosed", text("profiles: {smoke: {"), "cannot be read", "line 1")
bad_params("no_text", text(b"\xff\xfe\x00\x01"), "cannot be read", "'utf-8'")
bad_params("python_object", text("a: !!python/object/apply:os.mkdir [ran]\n"), "cannot be read")
bad_params("unknown_alias", text("a: *b\n"), "cannot be read", "undefined alias")
bad_params("deep_nesting", text("[" * 600), "cannot be read", "recursion")
# found by fuzzing
bad_params("tag_without_a_value", text("!!int "), "cannot be read", "index out of range")
bad_params("key_that_is_a_list", text("? [1, {a: 1}]\n: 2\n"), "cannot be read", "unhashable")
bad_params("missing_file", nothing, "No such file")
bad_params("folder", lambda folder: (folder / "params.yaml").mkdir(), "Is a directory")
# fmt: on


# ---------------------------------------------------------------- folders of images

REGISTER = ["data.register", "tiny", "tiny"]


def tiny(folder: Path) -> Path:
    """Write a folder of images: two splits of two classes of two."""
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / "tiny" / split / label).mkdir(parents=True)
            for i in range(2):
                Image.fromarray(pixels()).save(folder / "tiny" / split / label / f"{i}.png")
    return folder / "tiny"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (*chunks, (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data]
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def header(width: int, height: int, depth: int = 8) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)


def saved(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def noise(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(pixels()).convert(mode)


def half_clear(mode: str) -> Image.Image:
    image = noise("RGBA")
    image.putalpha(Image.fromarray(pixels()[..., 0]))
    return image.convert(mode)


def bad_image(name: str, content: bytes, *says: str, file: str = "0.png") -> None:
    """Put an image of a registered set into the table, that ``prepare`` decodes."""

    def spoil(folder: Path) -> None:
        (tiny(folder) / "train" / "cat" / file).write_bytes(content)
        register("tiny", folder / "tiny")
        params(smoke__prepare__dataset="tiny")(folder)

    case(f"image-{name}", spoil, PREPARE, f"tiny/train/cat/{file}", *says)


def bad_folder(name: str, spoil: Spoil, *says: str, run: Run = REGISTER) -> None:
    case(f"folder-{name}", lambda folder: spoil(tiny(folder)), run, *says)


def named(name: str | bytes, kind: Callable = lambda path: open(path, "w").close()) -> Spoil:
    """Put something of that name beside the cats."""
    return lambda root: kind(os.fsencode(root / "train/cat") + b"/" + os.fsencode(name))


def bad_set(name: str, spoil: Spoil, *says: str, **changes) -> None:
    case(f"set-{name}", both(params(**changes), spoil), PREPARE, *says)


# fmt: off
HUGE = png(header(60_000, 60_000), (b"IDAT", zlib.compress(b"")))
DEEP = png(header(1, 1, 16), (b"IDAT", zlib.compress(bytes(7))))
TEXT_OF_8_MiB = png(header(1, 1), (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**23))))
bad_image("truncated_png", saved(noise())[:-300], "is a truncated or damaged image")
bad_image(
    "truncated_jpeg", saved(noise(), "JPEG")[:-300], "is a truncated or damaged image",
    file="0.jpg",
)
bad_image("header_only", saved(noise())[:33], "33 bytes of something else")
bad_image("shifted_data", saved(noise()).replace(b"IDAT", b"IDAT\0", 1), "damaged image")
bad_image("bomb_by_header", HUGE, "is too large an image", "3600000000 pixels")
bad_image("no_width", png(header(0, 5), (b"IDAT", b"")), "0.png: is")
bad_image("zero_bytes", b"", "is empty", "0 bytes")
bad_image("text", b"these are words", "is not an image", "15 bytes of something else")
bad_image("gif", saved(noise(), "GIF"), "is not an image", "JPEG or PNG")
bad_image("webp", saved(noise(), "WEBP"), "is not an image", "JPEG or PNG")
bad_image("16_bit_grey", saved(noise("I;16")), "is a 16-bit image", "I;16")
bad_image("16_bit_rgb", DEEP, "is a 16-bit image")
bad_image("cmyk", saved(noise("CMYK"), "JPEG"), "is a CMYK image", file="0.jpg")
bad_image("alpha", saved(half_clear("RGBA")), "has transparent pixels", "32x32")
bad_image("grey_with_alpha", saved(half_clear("LA")), "has transparent pixels")
bad_image(
    "palette_with_a_clear_colour", saved(noise().quantize(4), transparency=0),
    "has transparent pixels",
)
bad_image("text_chunk_of_8_MiB", TEXT_OF_8_MiB, "0.png: is")
bad_image("name_of_250_letters", b"", "is empty", file="a" * 246 + ".png")

bad_folder("newline_in_a_name", named("a\nb.png"), "a\\nb.png: has an unusable name")
bad_folder("tab_in_a_name", named("a\tb.png"), "a\\tb.png: has an unusable name")
bad_folder("name_that_is_no_utf8", named(b"\xff\xfe.png"), "has an unusable name", "UTF-8")
bad_folder(
    "newline_in_a_class", lambda root: (root / "train/cat").rename(root / "train/c\nt"),
    "c\\nt: has an unusable name",
)
bad_folder("folder_named_as_an_image", named("x.png", os.mkdir), "cat/x.png: lies too deep")
bad_folder(
    "link_to_itself", named("x.png", lambda path: os.symlink(path, path)),
    "x.png: is a broken link",
)
bad_folder(
    "links_in_a_circle",
    lambda root: ((root / "train/a").symlink_to("b"), (root / "train/b").symlink_to("a")),
    "is a broken link",
)
bad_folder(
    "link_to_the_root", named("x", lambda path: os.symlink(b"../..", path)), "links to a folder",
)
bad_folder(
    "link_to_a_device", named("x.png", lambda path: os.symlink(b"/dev/zero", path)),
    "leads out of the image folder",
)
bad_folder("pipe", named("x.png", os.mkfifo), "x.png: is no image", "a regular file")
bad_folder(
    "class_of_one_split", lambda root: (root / "test/dog").rename(root / "test/wolf"),
    "only in one of them: dog, wolf",
)
bad_folder(
    "absent", nothing, "tinny: is not a folder", "found nothing", run=[*REGISTER[:-1], "tinny"],
)
bad_folder(
    "a_file", nothing, "is not a folder", "found a file",
    run=[*REGISTER[:-1], "tiny/train/cat/0.png"],
)
bad_folder(
    "name_is_a_path", nothing, "cannot name an image folder", "'../x'",
    run=["data.register", "../x", "tiny"],
)
bad_folder("name_is_too_long", nothing, "at most 64", run=["data.register", "x" * 300, "tiny"])
bad_folder(
    "name_is_built_in", nothing, "a built-in set's name", run=["data.register", "emoji10", "tiny"],
)
bad_folder(
    "group_is_no_pattern", nothing, "--group", "unterminated", run=[*REGISTER, "--group", "(a"],
)

bad_set(
    "unknown", nothing, "did you mean 'emoji10'?", "stages.data.register",
    smoke__prepare__dataset="emoji11",
)
bad_set(
    "unknown_split", nothing, "emoji10/trian", "did you mean 'train'?",
    prepare__train_split="trian",
)
bad_set("not_fetched", nothing, "data/emoji10/train.npz", "dvc pull data.dvc")
bad_set(
    "not_mounted", nothing, "real/imagenet", "IMAGENET_ROOT is not set",
    smoke__prepare__dataset="imagenet",
)
bad_set(
    "of_other_files", lambda here: (here / "real/cifar10").mkdir(parents=True),
    "does not hold cifar10", "checksums", smoke__prepare__dataset="cifar10",
)
bad_set(
    "side_of_100000_pixels", nothing, "a side of 1 to 4096 pixels", "found 100000",
    smoke__prepare__size=100_000,
)
bad_set(
    "changed_since",
    lambda here: (register("tiny", tiny(here)), (here / "tiny/test/dog/1.png").unlink()),
    "is not the registered tiny", "count 8", "found 7", smoke__prepare__dataset="tiny",
)
# fmt: on


# ---------------------------------------------------------------- embedded sets, fingerprints


def mini(folder: Path, **changes) -> None:
    """Write an embedded set "mini" and its fingerprint; then change arrays of train.npz."""
    splits = {}
    for split in ("train", "test"):
        arrays = {"images": pixels(4), "labels": np.arange(4) % 2, "groups": np.arange(4)}
        write_split(folder / f"data/mini/{split}.npz", ["a", "b"], **arrays)
        splits[split] = {"arrays": {k: fingerprint.array_hash(k, v) for k, v in arrays.items()}}
    content = {"kind": "embedded", "seed": 0, "splits": splits}
    write_json(folder / "fingerprints/mini.json", content)
    path = folder / "data/mini/train.npz"
    with np.load(path) as arrays:
        np.savez(path, **{k: changes.get(k, lambda v: v)(v) for k, v in arrays.items()})
    params(smoke__prepare__dataset="mini")(folder)


def bad_embedded(name: str, array: str, change: Callable, *says: str) -> None:
    def spoil(folder: Path) -> None:
        mini(folder, **{array: change})

    case(f"embedded-{name}", spoil, PREPARE, "data/mini/train.npz", *says)


def bad_print(name: str, content: str, *says: str) -> None:
    spoil = both(mini, text(content, "fingerprints/mini.json"))
    case(f"fingerprint-{name}", spoil, PREPARE, "fingerprints/mini.json", *says)


# fmt: off
bad_embedded("other_labels", "labels", lambda v: v[::-1], "labels with SHA-256")
bad_embedded("labels_as_floats", "labels", lambda v: v.astype(float), "labels with SHA-256")
bad_embedded("ends_as_floats", "ends", lambda v: v.astype(float), "is not the embedded set")
# found by fuzzing
bad_embedded("ends_is_a_number", "ends", lambda v: np.int64(3), "can be decoded", "indices")
bad_embedded("ends_beyond_the_end", "ends", lambda v: v + 10**6, "is not the embedded set")
bad_embedded("pictures_as_floats", "encoded", lambda v: v / 2, "can be decoded")
bad_embedded("pictures_of_zeros", "encoded", lambda v: 0 * v, "can be decoded")
bad_embedded("no_pictures", "encoded", lambda v: v[:0], "can be decoded")
bad_embedded("objects", "labels", lambda v: v.astype(object), "is not a readable array file")

FOLDER = {"kind": "folder", "group": None, "attribution": "", "count": 0, "bytes": 0}
FOLDER |= {"listing_sha256": "", "sha256": "", "splits": {"all": {"sha256": "", "classes": {}}}}
OF_IMAGES = fingerprint.array_hash("images", pixels(4))
bad_print("cut", '{"kind": "embedded', "is not a readable JSON file")
bad_print("list", "[1]", "found a list")
bad_print("no_kind", '{"splits": {}}', "a kind, embedded or folder", "found None")
bad_print("unknown_kind", '{"kind": "zip", "splits": {}}', "found 'zip'")
bad_print("splits_is_a_list", '{"kind": "embedded", "splits": []}', "'splits', dict", "found list")
# found by fuzzing
bad_print("no_splits", '{"kind": "embedded", "splits": {}}', "a split or more", "found none")
bad_print("split_is_a_number", '{"kind": "embedded", "splits": {"train": 1}}', "'train'", "int")
bad_print(
    "no_hash_of_labels",
    json.dumps({"kind": "embedded", "splits": {"train": {"arrays": {"images": OF_IMAGES}}}}),
    "lacks 'labels'", "found images",
)
bad_print(
    "nameless_split",
    json.dumps({"kind": "embedded", "seed": 0, "splits": {"": {"arrays": {}}}}),
    "a name for every split", "found ''",
)
bad_print("no_count", json.dumps({**FOLDER, "count": None}), "'count', int", "found NoneType")
bad_print("bad_group", json.dumps({**FOLDER, "group": "("}), "is no regular expression")
bad_print("nan", '{"kind": "embedded", "seed": NaN, "splits": {}}', "NaN, which is no number")
bad_print("deep", "[" * 100_000, "is not a readable JSON file", "recursion")
# fmt: on


# ---------------------------------------------------------------- arrays between the stages

EVALUATE = command("colourisation.evaluate data runs out/x.npz")


def colour_data(folder: Path, **changes) -> Path:
    for split in ("train", "val", "test"):
        images_npz(folder / f"data/{split}.npz")
    params(**changes)(folder)
    return folder / "data/train.npz"


def bad_npz(name: str, spoil: Spoil, *says: str) -> None:
    """Put a file of training images into the table; ``spoil`` gets its path."""
    case(f"npz-{name}", lambda folder: spoil(colour_data(folder)), TRAIN, "data/train.npz", *says)


def of_images(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    return lambda path: images_npz(path, images=change(pixels(16)))


def claiming(path: Path) -> None:
    """Write an array that says that it has 10^15 numbers."""
    start = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (10**15,)}
    np.lib.format.write_array_header_1_0(start, shape)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", start.getvalue() + bytes(100))


def locked(path: Path) -> None:
    """Set the flags that say that the archive is encrypted."""
    content = bytearray(path.read_bytes())
    for start, flag in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for found in re.finditer(re.escape(start), bytes(content)):
            content[found.start() + flag] |= 1
    path.write_bytes(content)


def one_array(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").replace(path)


def bad_predictions(name: str, change: Callable, *says: str) -> None:
    def spoil(folder: Path) -> None:
        colour_data(folder)
        ab = {k: np.zeros((16, 2, SIZE, SIZE), np.float16) for k in ("test", "val", "train")}
        write_npz(folder / "runs/predictions-s0.npz", **change(ab))

    case(f"predictions-{name}", spoil, EVALUATE, "runs/predictions-s0.npz", *says)


# fmt: off
KIND = ("holds images of another kind", "uint8 (n, height, width, 3)")
DAMAGED = ("is not a readable array file", "dvc repro")
bad_npz("truncated", cut, *DAMAGED)
bad_npz("zero_bytes", lambda path: path.write_bytes(b""), *DAMAGED)
bad_npz("text", lambda path: path.write_text("no array"), *DAMAGED)
bad_npz("one_array", one_array, *DAMAGED, "no archive of arrays")
bad_npz("encrypted", locked, *DAMAGED, "is encrypted")
bad_npz("claims_a_petabyte", claiming, *DAMAGED)
bad_npz(
    "objects_with_code", lambda path: np.savez(path, images=np.array([Bomb(path)], object)),
    *DAMAGED, "never loaded",
)
bad_npz("missing", lambda path: path.unlink(), "No such file")
bad_npz("folder", lambda path: (path.unlink(), path.mkdir()), "Is a directory")
bad_npz(
    "no_images", lambda path: np.savez(path, labels=np.zeros(3)), *DAMAGED, "without ['images']",
)
bad_npz("floats", of_images(lambda x: x / 255), *KIND, "float64")
bad_npz("16_bits", of_images(lambda x: x.astype(">u2")), *KIND, ">u2")
bad_npz("grey", of_images(lambda x: x[..., 0]), *KIND, "(16, 32, 32)")
bad_npz("channels_first", of_images(lambda x: x.transpose(0, 3, 1, 2)), *KIND, "(16, 3, 32, 32)")
bad_npz("fewer_than_a_batch", lambda path: images_npz(path, 7), "at least 8", "found 7")
case(
    "size-not_a_multiple", lambda folder: images_npz(colour_data(folder), side=30), TRAIN,
    "a multiple of 8", "found 30",
)
case(
    "size-one_pixel", lambda folder: images_npz(colour_data(folder), side=1), TRAIN,
    "a multiple of 8", "found 1",
)
case(
    "size-not_the_judges", lambda folder: colour_data(folder, smoke__shared__perc_size=70),
    EVALUATE, "perc_size", "a multiple of 32", "found 70", "take 96",
)
case(
    "diverged", lambda folder: colour_data(folder, train__lr=1e30), TRAIN, "diverged at step",
    "nothing finished was overwritten", "lower lr", status=3,
)

bad_predictions(
    "nan", lambda ab: {**ab, "val": spoilt((0, 0, 0, 0), np.nan)(ab["val"])},
    "'val' cannot be measured", "found 1 NaN",
)
bad_predictions(
    "of_other_images", lambda ab: {**ab, "test": ab["test"][:3]}, "(16, 2, 32, 32)",
    "(3, 2, 32, 32)",
)
bad_predictions("missing", lambda ab: {"test": ab["test"]}, "without ['train', 'val']")
# fmt: on


# ---------------------------------------------------------------- weights

PERTURB = command("gan_transform.perturb data target out")
UNUSABLE = "cannot be used as weights"


def bad_judge(name: str, spoil: Spoil, *says: str, file: str = "vgg19.h5") -> None:
    """Put weights of VGG19 that the user gives into the table; ``spoil`` gets their path."""
    kind = "vgg19_keras" if file.endswith(".h5") else "vgg19_tv"
    given = params(shared__perc_backbone=kind, shared__perc_weights=file)
    spoils = both(colour_data, given, lambda here: spoil(here / file))
    case(f"weights-{name}", spoils, EVALUATE, file, UNUSABLE, *says)


def bad_backbone(name: str, spoil: Spoil, *says: str) -> None:
    """Put weights of a ResNet50 that the user gives into the table; ``spoil`` gets their path."""

    def whole(folder: Path) -> None:
        params("deep_features", train_reid__backbone_weights="resnet50.pth")(folder)
        write_json(folder / "data/meta.json", {"proprietary": "p"})
        images_npz(folder / "data/p_train.npz", 24, pids=np.arange(24) // 4 + 1)
        spoil(folder / "resnet50.pth")

    run = command("deep_features.train_reid data out", "--variant", "bot")
    case(f"weights-{name}", whole, run, "resnet50.pth", *says)


def target_data(folder: Path) -> Path:
    images_npz(folder / "data/train.npz")
    write_json(folder / "data/meta.json", {"classes": ["a", "b"]})
    torch.manual_seed(0)
    path = folder / "target/htheta-s0.safetensors"
    path.parent.mkdir()
    save_file(VGG13(2, constant_normalisation(), 8).state_dict(), path)
    return path


def bad_weights(name: str, change: Callable[[Path, dict], object], *says: str, **changes) -> None:
    """Put weights of h_theta into the table; ``change`` gets the file and its state dict."""

    def spoil(folder: Path) -> None:
        params("gan_transform", smoke__perturb__n=16, **changes)(folder)
        path = target_data(folder)
        change(path, VGG13(2, constant_normalisation(), 8).state_dict())

    case(f"weights-{name}", spoil, PERTURB, "target/htheta-s0.safetensors", UNUSABLE, *says)


def saving(change: Callable[[str, torch.Tensor], torch.Tensor | None], **more) -> Callable:
    """Save a state dict whose tensors are changed, left out (None) or added."""

    def spoil(path: Path, state: dict) -> None:
        new = {name: change(name, tensor) for name, tensor in state.items()}
        save_file({k: v for k, v in new.items() if v is not None} | more, path)

    return spoil


# fmt: off
bad_judge("missing", nothing, "a readable file")
bad_judge("other_ending", lambda path: path.write_bytes(b"x"), "a .bin", file="vgg19.bin")
bad_judge("keras_text", lambda path: path.write_text("no HDF5"), "a Keras HDF5 file")
bad_judge("keras_empty", lambda path: h5py.File(path, "w").close(), "the layer 'block1_conv1'")
bad_backbone("folder", lambda path: path.mkdir(), "Is a directory")
bad_backbone("web_page", lambda path: path.write_text("<html>"), UNUSABLE, "tensors by name")
bad_backbone("pickle_with_code", pickled, UNUSABLE, "never loaded")
bad_backbone(
    "archive_with_code", lambda path: torch.save({"w": Bomb(path)}, path), UNUSABLE, "never loaded",
)
bad_backbone("module", lambda path: torch.save(torch.nn.ReLU(), path), UNUSABLE, "never loaded")
bad_backbone("list_of_tensors", lambda path: torch.save([torch.zeros(2)], path), UNUSABLE, "a list")
bad_backbone(
    "no_tensors", lambda path: torch.save({}, path), "holds no backbone", "the tensors none",
)
bad_backbone(
    "wrong_net", lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
    "holds no backbone", "the tensors bias, weight",
)
bad_backbone(
    "part_of_a_net", lambda path: torch.save({"layer1.x": torch.zeros(2)}, path), UNUSABLE,
    "found none",
)

bad_weights("truncated", lambda path, state: cut(path), "tensors by name")
bad_weights("zero_bytes", lambda path, state: path.write_bytes(b""), "tensors by name")
bad_weights("pickle_named_safetensors", lambda path, state: pickled(path), "tensors by name")
bad_weights(
    "header_of_an_exabyte", lambda path, state: path.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "tensors by name",
)
bad_weights("tensor_missing", saving(lambda name, v: v if v.ndim < 4 else None), "found none")
bad_weights(
    "tensor_too_many", saving(lambda name, v: v, more=torch.zeros(3)), "no such tensor for 'more'",
)
bad_weights(
    "other_width", lambda path, state: None, "(16, 3, 3, 3)", "found (8, 3, 3, 3)",
    smoke__shared__target_width=16,
)
bad_weights(
    "nan", saving(lambda name, v: v * torch.nan if v.ndim == 4 else v), "finite numbers",
    "NaN or infinity",
)
bad_weights("whole_numbers", saving(lambda name, v: v.long()), "torch.float32", "torch.int64")

case(
    "weights-of_nothing_known",
    both(
        params("gan_transform", smoke__perturb__n=16), target_data,
        lambda here: write_json(here / "data/meta.json", {"dataset": "x"}),
    ),
    PERTURB, "data/meta.json", "lacks 'classes'", "found dataset",
)
case(
    "npz-fewer_than_are_to_be_protected", both(params("gan_transform"), target_data), PERTURB,
    "data/train.npz", "at least 48", "found 16",
)
# fmt: on


# ---------------------------------------------------------------- keys and schemes of paper A

CLASSIFY = command("gan_transform.classify data schemes/s out")
ENCRYPT = command("gan_transform.encrypt data target transforms out")
ATTACK = command("gan_transform.attack data schemes/s out")
CRYPTANALYSE = command("gan_transform.cryptanalyse data schemes out")
LE = {"cipher": "tanaka"}
PE = {"cipher": "pe", "keys": "same"}
BITS = {f"bits_{split}": np.zeros((1, SIZE, SIZE, 3), np.uint8) for split in SPLITS}
ORDERS = {f"perm_{split}": np.zeros((1, SIZE, SIZE), np.uint8) for split in SPLITS}


def gan_data(side: int = SIZE, line: dict = LE) -> Spoil:
    """Write images, and the folder of a scheme with ciphers."""

    def spoil(folder: Path) -> None:
        for split in SPLITS:
            images_npz(folder / f"data/{split}.npz", 24, side)
        write_json(folder / "data/meta.json", {"classes": ["a", "b"], "panel": [0]})
        write_scheme(folder / "schemes/s", parse_scheme("s", line))
        for name in ("attack_train", "attack_test"):
            images_npz(folder / f"schemes/s/{name}-s0.npz", 24, side)
        params("gan_transform")(folder)

    return spoil


def bad_key(name: str, line: dict, arrays: dict | bytes, *says: str) -> None:
    def spoil(folder: Path) -> None:
        path = folder / "schemes/s/key-s0.npz"
        path.write_bytes(arrays) if isinstance(arrays, bytes) else np.savez(path, **arrays)

    case(f"key-{name}", both(gan_data(line=line), spoil), CLASSIFY, "s/key-s0.npz", *says)


def bad_scheme(name: str, line, *says: str, spoil: Spoil = nothing) -> None:
    """Put a line of ``gan_transform.encrypt.schemes`` into the table."""
    given = params("gan_transform", encrypt__schemes={"odd": line})
    case(f"scheme-{name}", both(given, spoil), ENCRYPT, *says)


# fmt: off
bad_key("too_short", LE, {"key": np.arange(95)}, "each of 0 .. 95 once", "int64 (95,)")
bad_key("number_twice", LE, {"key": np.r_[0, 0, 2:96]}, "each of 0 .. 95 once", "95 different")
bad_key("number_too_large", LE, {"key": np.r_[0:95, 96]}, "each of 0 .. 95 once")
bad_key("of_floats", LE, {"key": np.arange(96.0)}, "each of 0 .. 95 once", "float64")
bad_key("of_another_name", LE, {"perm": np.arange(96)}, "lacks 'key'", "found perm")
bad_key("no_archive", LE, b"key", "is not a readable array file")
bad_key(
    "aes_of_15_bytes", {"cipher": "aes"}, {"key": np.zeros(15, np.uint8)}, "uint8 (16,)",
    "uint8 (15,)",
)
bad_key("aes_of_floats", {"cipher": "aes"}, {"key": np.zeros(16)}, "uint8 (16,)", "float64")
bad_key("bits_of_2", PE, {k: v + 2 for k, v in BITS.items()}, "0 or 1")
bad_key("bits_without_channels", PE, {k: v[..., 0] for k, v in BITS.items()}, "(k, h, w, 3)")
bad_key("no_bits_of_a_split", PE, {"bits_train": BITS["bits_train"]}, "lacks 'bits_")
bad_key("no_orders", {**PE, "shuffle": True}, BITS, "lacks 'perm_")
bad_key(
    "order_6", {**PE, "shuffle": True}, {**BITS, **{k: v + 6 for k, v in ORDERS.items()}},
    "below 6",
)
bad_key(
    "negative_seed", {"cipher": "random_sign", "epsilon": 3}, {"key": np.array([-1])}, "0 or more",
)

bad_scheme("unknown_cipher", {"cipher": "rot13"}, "'odd' has no such cipher", "'rot13'", "tanaka")
bad_scheme("no_cipher", {}, "'odd' has no such cipher", "found None")
bad_scheme("misspelled_key", {"cipher": "pe", "kyes": "same"}, "did you mean 'keys'?")
bad_scheme("unknown_keys", {"cipher": "pe", "keys": "samee"}, "'same', 'diff'", "found 'samee'")
bad_scheme("no_sigma", {"cipher": "blur"}, "'odd' lacks 'sigma'")
bad_scheme("sigma_in_words", {"cipher": "blur", "sigma": "3"}, "a wrong 'sigma'", "found '3'")
bad_scheme(
    "float_epsilon", {"cipher": "random_sign", "epsilon": 0.5}, "a wrong 'epsilon'", "found 0.5",
)
bad_scheme("shuffle_in_words", {**PE, "shuffle": "no"}, "a wrong 'shuffle'", "true or false")
bad_scheme("unknown_arm", {"cipher": "aes", "augment": ["sever"]}, "client, server, none", "sever")
bad_scheme("arm_without_a_list", {"cipher": "aes", "augment": "server"}, "a list of", "'server'")
bad_scheme("a_number", 3, "a map of keys to values", "found 3")
bad_scheme(
    "variant_that_was_not_trained", {"cipher": "transform", "variant": "propsed"},
    "did you mean 'proposed'?",
    spoil=lambda here: (here / "transforms/proposed").mkdir(parents=True),
)
bad_scheme(
    "nothing_was_trained", {"cipher": "transform", "variant": "propsed"},
    "transforms: cannot be used", "No such file",
)
case(
    "scheme-meta_of_another_kind",
    both(gan_data(), lambda here: write_json(here / "schemes/s/meta.json", {"run": "R42_G"})),
    CLASSIFY, "schemes/s/meta.json", "has no such cipher",
)

case(
    "ciphers-of_other_images",
    both(gan_data(), lambda here: images_npz(here / "schemes/s/attack_train-s0.npz", 8)), ATTACK,
    "schemes/s/attack_train-s0.npz", "uint8 (24, 32, 32, 3)", "(8, 32, 32, 3)",
)
case(
    "ciphers-no_panel", both(gan_data(), lambda here: write_json(here / "data/meta.json", {})),
    ATTACK, "data/meta.json", "lacks 'panel'", "found nothing",
)
case(
    "ciphers-none", both(gan_data(), lambda here: (here / "schemes/s/meta.json").unlink()),
    CRYPTANALYSE, "holds no encrypted images", "dvc repro",
)
case("ciphers-not_tiled", gan_data(side=30), CRYPTANALYSE, "4 x 4 blocks", "found 30 x 30")
case(
    "ciphers-fewer_than_the_attack_needs", gan_data(), CRYPTANALYSE, "n_cipher", "32 in a half",
    "found 12",
)
# fmt: on


# ---------------------------------------------------------------- keypoints, networks of paper B

SIFT = {"contrast_threshold": 0.04, "edge_threshold": 10, "sigma": 1.6, "octave_layers": 3}
SIFT |= {"order": "response", "collision": "adjacent", "r_max": 1}
COARSE = {"run": "R42_J", "set": "faces", "net": "R", "size": SIZE, "width": 0.05}
COARSE |= {"channels": 128, "desc_norm": "unit", "inputs": [4, 2]}
RUN = "sift/train/R42_J"
RULES = "sift/extract/faces_train/meta.json"


def keypoints(folder: Path, n: int = 16) -> Path:
    """Write what ``extract`` writes for the faces to train on: two keypoints in each image."""
    rng = np.random.default_rng(0)
    kp = np.concatenate([rng.uniform(2, 30, (2 * n, 4)), np.full((2 * n, 1), 0.1)], 1)
    found = {
        "desc": rng.integers(0, 100, (2 * n, 128), np.uint8),
        "kp": kp.astype(np.float32),
        "octave": np.full(2 * n, 511, np.int32),
        "offsets": stored.offsets_of([2] * n),
    }
    stored.write(folder / "extracted/faces_train", arrange(found, SIZE, SIFT))
    images_npz(folder / "data/faces_train.npz", n)
    params("sift_inversion", smoke__shared__size=SIZE)(folder)
    return folder / "extracted/faces_train"


def bad_keypoints(name: str, spoil: Spoil, *says: str) -> None:
    run = command("sift_inversion.train data extracted out", "--variant", "R42_J")
    case(f"keypoints-{name}", lambda here: spoil(keypoints(here)), run, "faces_train", *says)


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(folder: Path) -> None:
        np.save(folder / f"{name}.npy", change(np.load(folder / f"{name}.npy")))

    return spoil


def sift_run(folder: Path) -> Path:
    """Write a trained run and a photograph."""
    write_json(folder / RULES, {"params": SIFT, "size": SIZE})
    write_json(folder / RUN / "meta.json", COARSE)
    torch.manual_seed(0)
    save_file(build_coarse(COARSE).state_dict(), folder / RUN / "weights-s0.safetensors")
    Image.fromarray(pixels(side=60)).save(folder / "photo.png")
    return folder


def bad_run(name: str, spoil: Spoil, *says: str, photo="photo.png", out="out/new.png", more=()):
    """Put an inversion of a photograph into the table."""
    run = ["sift_inversion.invert", photo, "--weights", RUN, "--out", out, *more]
    case(f"invert-{name}", both(sift_run, spoil), run, *says)


def meta_of(**changes) -> Spoil:
    return lambda here: write_json(here / RUN / "meta.json", {**COARSE, **changes})


def rules_of(params: dict) -> Spoil:
    return lambda here: write_json(here / RULES, {"params": params})


# fmt: off
bad_keypoints("truncated", lambda here: cut(here / "desc.npy"), "desc.npy", "uint8 (N, 128)")
bad_keypoints(
    "zero_bytes", lambda here: (here / "kp.npy").write_bytes(b""), "kp.npy", "No data left",
)
bad_keypoints("missing", lambda here: (here / "octave.npy").unlink(), "octave.npy", "No such")
bad_keypoints(
    "objects_with_code", changed("octave", lambda a: np.array([Bomb(Path("out/x"))] * 32, object)),
    "octave.npy",
)
bad_keypoints("floats", changed("desc", lambda a: a / 255), "desc.npy", "found float64 (32, 128)")
bad_keypoints("of_64_numbers", changed("desc", lambda a: a[:, :64]), "found uint8 (32, 64)")
bad_keypoints(
    "one_is_lost", changed("octave", lambda a: a[1:]), "do not belong together", "[31, 32]",
)
bad_keypoints("offsets_that_fall", changed("offsets", spoilt(1, 9)), "never falling")
bad_keypoints("no_offsets", changed("offsets", lambda a: a[:0]), "do not belong together")
bad_keypoints("nan", changed("kp", spoilt((0, 0), np.nan)), "1 numbers NaN or infinite")
bad_keypoints("beside_the_map", changed("cells", spoilt((0, 0), 8)), "1 cells beside the maps")
bad_keypoints(
    "of_other_images", lambda here: images_npz(here.parents[1] / "data/faces_train.npz", 17),
    "does not belong to the images",
)
bad_keypoints(
    "no_size", lambda here: write_json(here / "meta.json", {"params": SIFT}), "lacks 'size'",
    "found params",
)
bad_keypoints(
    "size_in_words", lambda here: write_json(here / "meta.json", {"size": "32"}), "from 1 to 508",
    "found '32'",
)
case(
    "keypoints-images_of_another_size",
    both(params("sift_inversion"), lambda here: images_npz(here / "data/faces_train.npz")),
    command("sift_inversion.extract data out"), "data/faces_train.npz", "(n, 64, 64, 3)",
)
case(
    "keypoints-image_too_large",
    both(
        params("sift_inversion", smoke__shared__size=512),
        lambda here: write_npz(
            here / "data/faces_train.npz", images=np.zeros((1, 512, 512, 3), np.uint8)
        ),
    ),
    command("sift_inversion.extract data out"), "at most 508 px", "found 512",
)

bad_run(
    "photo_of_one_pixel", lambda here: Image.new("RGB", (1, 1)).save(here / "photo.png"),
    "photo.png", "has no SIFT keypoints",
)
bad_run("photo_is_a_folder", nothing, "sift: cannot be read", "Is a directory", photo="sift")
bad_run(
    "photo_with_a_newline", lambda here: (here / "a\nb.jpg").touch(), "a\\nb.jpg: is empty",
    photo="a\nb.jpg",
)
bad_run("photo_is_a_bomb", text(HUGE, "photo.png"), "is too large an image")
bad_run("out_is_no_png", nothing, "a name that ends in .png", "found .jpg", out="photo.jpg")
bad_run("out_is_below_a_file", nothing, "cannot be written", out="photo.png/x.png")
bad_run(
    "run_of_another_paper", text('{"net": "resnet50"}', f"{RUN}/meta.json"),
    "does not say what the networks are",
)
bad_run("unknown_net", meta_of(net="unet"), "net has the wrong value", "'R', 'dosovitskiy'")
bad_run("size_in_words", meta_of(size="32"), "size has the wrong value", "found '32'")
bad_run("width_of_0", meta_of(width=0), "width has the wrong value", "above 0")
bad_run("unknown_inputs", meta_of(inputs=[8]), "inputs has the wrong value", "4, 2", "found [8]")
bad_run("weights_of_another_width", meta_of(width=0.1), "weights-s0.safetensors", UNUSABLE)
bad_run("weights_of_other_inputs", meta_of(inputs=[4]), "weights-s0.safetensors", "no such tensor")
bad_run("size_not_a_multiple", meta_of(size=33), "does not fit the images", "found 33")
bad_run("no_rules", rules_of({}), RULES, "says no contrast_threshold", "found None")
bad_run("sigma_in_words", rules_of({**SIFT, "sigma": "a"}), RULES, "says no sigma", "found 'a'")
bad_run(
    "unknown_order", rules_of({**SIFT, "order": "responce"}), "'response', 'size', 'random'",
    "'responce'",
)
bad_run(
    "negative_seed", nothing, "has no network of seed -1", "one of the seeds 0",
    more=("--seed", "-1"),
)
# fmt: on


# ---------------------------------------------------------------- people, features, keys of paper C

ATTRIBUTES = command("deep_features.attributes data extracted out")
RECONSTRUCT = command("deep_features.reconstruct data extracted out", "--variant", "pixel")
MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c2s3_070952_01.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["0001_c2s1_001051_02.jpg"],
}


def bad_people(name: str, spoil: Spoil, *says: str, **changes) -> None:
    """Put a folder of people into the table; ``spoil`` gets Market's training images."""

    def whole(folder: Path) -> None:
        for part, names in MARKET.items():
            for file in names:
                text(saved(noise(), "JPEG"), f"real/market/{part}/{file}")(folder)
        spoil(folder / "real/market/bounding_box_train")
        sets = {"smoke__prepare__proprietary": "market", "smoke__prepare__local_sets": ["synth_a"]}
        params("deep_features", **{**sets, **changes})(folder)

    case(f"people-{name}", whole, command("deep_features.prepare out"), *says)


def bad_list(name: str, lines: str, *says: str) -> None:
    def crops(here: Path):
        return ReidFolder("msmt17", here / "msmt").crops("train")

    spoil = both(text(lines, "msmt/list_train.txt"), lambda here: (here / "msmt/train").mkdir())
    case(f"people-{name}", spoil, crops, "list_train.txt, line", "<path> <identity>", *says)


def bad_attributes(name: str, spoil: Spoil, *says: str, file: str = "a.csv") -> None:
    read = read_mat if file.endswith("mat") else read_csv
    case(f"attributes-{name}", spoil, lambda here: read(here / file, {}), file, *says)


def features(folder: Path) -> Path:
    """Write labels of two local sets and what one black box says of them."""
    tasks = [{"name": "hat", "classes": ["no", "yes"]}]
    meta = {"locals": ["a", "b"], "sets": {k: {"tasks": tasks} for k in "ab"}, "proprietary": "p"}
    write_json(folder / "data/meta.json", meta)
    for i, name in enumerate(["a", "b"]):
        for j, split in enumerate(["train", "test"]):
            pids = 100 * i + 50 * j + np.arange(24) // 2 + 1
            write_npz(folder / f"data/{name}_{split}.npz", attributes=pids[:, None] % 2, pids=pids)
            x = np.random.default_rng(i + j).standard_normal((24, 16)).astype(np.float32)
            write_npz(folder / f"extracted/bot/{name}_{split}-s0.npz", features=x)
    params("deep_features")(folder)
    return folder / "extracted/bot/a_train-s0.npz"


def bad_features(name: str, spoil: Spoil, *says: str) -> None:
    """Put features of a black box into the table; ``spoil`` gets those of a local set."""
    case(f"features-{name}", lambda here: spoil(features(here)), ATTRIBUTES, *says)


def features_of(change: Callable[[np.ndarray], np.ndarray]) -> Spoil:
    def spoil(path: Path) -> None:
        with np.load(path) as arrays:
            write_npz(path, features=change(arrays["features"]))

    return spoil


def labels_of(attributes: np.ndarray, pids: np.ndarray) -> Spoil:
    return lambda path: write_npz(
        path.parents[2] / "data/a_test.npz", attributes=attributes, pids=pids
    )


def bad_cells(name: str, cells: list, *says: str) -> None:
    given = params("deep_features", smoke__reconstruct__cells=cells)
    case(f"features-{name}", both(features, given), RECONSTRUCT, "cells", *says)


def bad_request(name: str, spoil: Spoil, *says: str, more: tuple = ()) -> None:
    """Put an attack on one ciphertext into the table."""

    def whole(folder: Path) -> None:
        plain = np.random.default_rng(0).standard_normal((24, 32)).astype(np.float32)
        np.save(folder / "ref.npy", plain)
        np.save(folder / "req.npy", plain[:2].view(np.uint32))
        spoil(folder)

    run = ["deep_features.break_shufflebits", "--reference", "ref.npy", "--ciphertext", "req.npy"]
    case(f"request-{name}", whole, [*run, *more], *says)


def array(name: str, content) -> Spoil:
    return lambda here: np.save(here / name, content)


def claims(folder: Path) -> None:
    with (folder / "ref.npy").open("wb") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 32)}
        np.lib.format.write_array_header_1_0(file, shape)


def bad_bitkey(name: str, make: Callable[[], object], *says: str) -> None:
    case(f"bitkey-{name}", nothing, lambda here: make(), *says)


def bad_register(name: str, content: str, *says: str, path: str = "r.json") -> None:
    run = lambda here: RequestRegister(here / path).claim("x")  # noqa: E731
    case(f"register-{name}", text(content, path.split("/")[0]), run, path, *says)


def serialised(perm: list[int]) -> bytes:
    body = b"SBK1" + bytes([len(perm), *perm])
    return body + struct.pack("<I", zlib.crc32(body))


# fmt: off
bad_people(
    "no_folder", lambda train: (train.parent / "query").rename(train.parent / "quary"),
    "has no query images", "query/",
)
bad_people(
    "no_images", lambda train: [path.unlink() for path in train.iterdir()],
    "bounding_box_train: holds no images",
)
bad_people(
    "odd_name", lambda train: (train / "me at the sea.jpg").touch(),
    "me at the sea.jpg: is not named as in market",
)
bad_people(
    "newline_in_a_name", lambda train: (train / "a\nb.jpg").touch(),
    "a\\nb.jpg: is not named as in market",
)
bad_people(
    "name_that_is_no_utf8", lambda train: open(os.fsencode(train) + b"/\xff.jpg", "w").close(),
    "\\udcff.jpg: is not named as in market",
)
bad_people(
    "truncated_image", lambda train: cut(train / "0002_c1s1_000451_03.jpg"),
    "0002_c1s1_000451_03.jpg", "damaged",
)
bad_people(
    "one_in_both_splits",
    lambda train: (train / "0001_c1s1_000451_03.jpg").write_bytes(saved(noise(), "JPEG")),
    "same identities in both splits", "such as 1",
)
bad_people(
    "unknown_set", nothing, "markt", "did you mean 'market'?", smoke__prepare__proprietary="markt",
)
bad_people(
    "set_twice", nothing, "synth_a, synth_a", smoke__prepare__local_sets=["synth_a", "synth_a"],
)
bad_people(
    "not_a_persons_shape", nothing, "height and width", "found 60 x 32", smoke__prepare__height=60,
)
bad_people(
    "size_of_three_numbers", nothing, "local_test", "[1, 2, 3]",
    smoke__prepare__local_test=[1, 2, 3],
)
bad_list("list_that_leads_out", "../../secret.jpg 1\n", "line 1", "'../../secret.jpg 1'")
bad_list("identity_of_5000_digits", f"0000/0000_000_01_.jpg {'9' * 5000}\n", "line 1", "9999")
bad_list("line_without_identity", "0000/0000_000_01_.jpg 1\nx.jpg\n", "line 2", "'x.jpg'")

bad_attributes(
    "cut", text(b"MATLAB 5.0 MAT-file" + bytes(200), "a.mat"), "as market_attribute.mat",
    file="a.mat",
)
bad_attributes(
    "no_struct", lambda here: savemat(here / "a.mat", {"a": np.zeros(3)}), "train and test",
    file="a.mat",
)
bad_attributes("no_identity", text("id,hat\n1,2\n", "a.csv"), "a column identity")
bad_attributes("identity_twice", text("identity,hat\n1,2\n01,1\n", "a.csv"), "1 twice")
bad_attributes("ragged", text("identity,hat\n1,2\n2\n", "a.csv"), "line 3")
bad_attributes("utf16", text("identity,hat\n1,2\n".encode("utf-16"), "a.csv"), "'utf-8'")

OF = "extracted/bot/a_train-s0.npz"
bad_features("nan", features_of(spoilt((0, 0), np.nan)), OF, "found 1 NaN or infinite")
bad_features("float64", features_of(lambda x: x.astype(float)), OF, "found float64 (24, 16)")
bad_features("one_axis", features_of(lambda x: x.ravel()), OF, "features of 24 images", "(384,)")
bad_features("too_few", features_of(lambda x: x[:3]), OF, "features of 24 images", "(3, 16)")
bad_features("truncated", cut, OF, "is not a readable array file")
bad_features("missing", lambda path: path.unlink(), OF, "No such file")
bad_features(
    "of_no_black_box", lambda path: path.parent.rename(path.parents[2] / "moved"),
    "extracted: holds no features",
)
bad_features(
    "of_no_sets", lambda path: write_json(path.parents[2] / "data/meta.json", {}), "data/meta.json",
    "does not describe the local sets",
)
bad_features(
    "class_without_a_name", labels_of(np.full((24, 1), 7), np.arange(24) + 51), "a_test.npz",
    "up to class 7",
)
bad_features(
    "labels_of_people_trained_on", labels_of(np.zeros((24, 1), int), np.arange(24) + 1),
    "shows people of the training split",
)
bad_cells("unknown_cell", [["bt", "a"]], "the unknown model 'bt'", "did you mean 'bot'?")
bad_cells("cell_of_one_word", [["bot"]], "pairs [model, local set]", "['bot']")

ZEROS = np.zeros((2, 32), np.uint32)
bad_request("claims_128_terabytes", claims, "ref.npy", "cannot be read")
bad_request(
    "folder", lambda here: ((here / "req.npy").unlink(), (here / "req.npy").mkdir()), "req.npy",
    "Is a directory",
)
bad_request("truncated", lambda here: cut(here / "ref.npy"), "ref.npy", "cannot be read")
bad_request("pickle_with_code", lambda here: pickled(here / "req.npy"), "req.npy", "never loaded")
bad_request(
    "object_with_code",
    lambda here: np.save(here / "req.npy", np.array([Bomb(here / "x")], object)), "req.npy",
    "never loaded",
)
bad_request(
    "records", array("req.npy", ZEROS.view([("a", "u4"), ("b", "u4")])), "req.npy",
    "holds no request",
)
bad_request("true_and_false", array("req.npy", ZEROS > 0), "found bool of shape (2, 32)")
bad_request("complex_reference", array("ref.npy", np.zeros((9, 32), complex)), "found complex128")
bad_request(
    "infinite_reference", array("ref.npy", np.full((9, 32), np.inf, np.float32)),
    "288 values that are NaN or infinite",
)
bad_request(
    "reference_without_dimensions", array("ref.npy", np.zeros((9, 0), np.float32)), "shape (9, 0)",
)
bad_request("reference_of_one_number", array("ref.npy", np.float32(1)), "shape ()")
bad_request(
    "out_below_a_file", nothing, "ref.npy/x.npy", "cannot be written",
    more=("--out", "ref.npy/x.npy"),
)

KEY = BitKey.identity(8).to_bytes()
bad_bitkey("empty", lambda: BitKey.from_bytes(b""), "serialised key", "0 bytes")
bad_bitkey("cut", lambda: BitKey.from_bytes(KEY[:-1]), "serialised key", "16 bytes")
bad_bitkey(
    "flipped_bit", lambda: BitKey.from_bytes(KEY[:6] + b"\x07" + KEY[7:]), "another checksum",
)
bad_bitkey(
    "position_twice", lambda: BitKey.from_bytes(serialised([0, 0, *range(2, 8)])),
    "is no permutation", "0 to 7 once", "found 7",
)
bad_bitkey(
    "of_12_bits", lambda: BitKey.from_bytes(serialised([*range(12)])), "8, 16, 32 or 64 bits",
    "found 12",
)
bad_bitkey("negative", lambda: BitKey([-1, *range(1, 8)]), "is no permutation", "found 7")
bad_bitkey("rank_too_large", lambda: BitKey.from_lehmer(b"\xff" * 15), "below 32!")
bad_bitkey("rank_too_long", lambda: BitKey.from_lehmer(bytes(16)), "15 bytes", "16 bytes")
bad_bitkey(
    "short_secret", lambda: BitKey.derive(bytes(31), "r", register=None), "32 bytes", "found 31",
)
bad_bitkey("no_request", lambda: BitKey.derive(bytes(32), "", register=None), "has no id")
bad_register("damaged", "{", "is not a readable JSON file")
bad_register("of_something_else", '{"claimed": []}', "is not a register of requests", "['claimed']")
bad_register("below_a_file", "", "cannot be locked", path="f/r.json")
if importlib.util.find_spec("onnx") is None:
    bad_bitkey(
        "onnx_is_not_installed", lambda: with_tail(None), "the package onnx", "not installed",
        "pip install",
    )
# fmt: on


# ---------------------------------------------------------------- results, notebooks, the rest

RENDER = ["common.render", "n.ipynb", "out/n.html", "out/n", "--profile", "smokey"]
CLAIMS = "paper: x\nsetting: {}\ncells: []\nclaims: [{id: C1, statement: s, source: x, test: t}]\n"
ASK = """from stages.common.params import load_params, section
section(load_params(), f'profiles.{profile}')"""


def bad_result(name: str, content: str, *says: str) -> None:
    spoil = both(text(CLAIMS, "stages/demo/paper.yaml"), text(content, "results/demo/claims.json"))
    run = command("scoreboard.verdicts results out/verdicts.json")
    case(f"result-{name}", spoil, run, "results/demo/claims.json", *says)


def notebook(tag: str = "parameters", source: str = "") -> Spoil:
    cells = [
        nbformat.v4.new_code_cell('profile = "x"\nfigures = "y"', id="given"),
        nbformat.v4.new_code_cell(source, id="ask"),
    ]
    cells[0].metadata["tags"] = [tag]
    return text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)), "n.ipynb")


def bad_notebook(name: str, spoil: Spoil, *says: str, run: Run = RENDER) -> None:
    case(f"notebook-{name}", spoil, run, "n.ipynb", *says)


def misspelled(here: Path) -> None:
    execute(here / "n.ipynb", profile="smoke", figres="x")


def committed(name: str) -> Spoil:
    content = (REPOSITORY / "stages/data/fingerprints" / f"{name}.json").read_bytes()
    return text(content, f"fingerprints/{name}.json")


def trained_twice(here: Path) -> None:
    with Checkpoint("run", {}).lock(), Checkpoint("run", {}).lock():
        pass


# fmt: off
FORMAT = '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}%s}'
UNREADABLE = "is not a readable notebook"
bad_result("cut", '{"details": [', "is not a readable JSON file")
bad_result("zero_bytes", "", "is not a readable JSON file")
bad_result("no_details", '{"verdicts": {}}', "lacks 'details'", "found verdicts")
bad_result("details_is_a_map", '{"details": {"C1": 1}}', "a list of maps", "{'C1': 1}")
bad_result("detail_without_id", '{"details": [{"verdict": "supported"}]}', "lacks 'id'")
bad_result("unknown_claim", '{"details": [{"id": "C9"}]}', "found C9")
bad_result("unknown_verdict", '{"details": [{"id": "C1", "verdict": "proven"}]}', "found proven")
bad_result("effect_in_words", '{"details": [{"id": "C1", "effect": "large"}]}', "numbers or null")
bad_result("nan", '{"details": [{"id": "C1", "effect": NaN}]}', "NaN, which is no number")
case(
    "result-of_no_profile", text('{"profile": "smokey", "profiles": {"smoke": {}}}'),
    ["scoreboard.verdicts"], "params.yaml", "names no profile", "did you mean 'smoke'?",
)
case(
    "result-none_for_the_readme", text("# x", "README.md"), ["scoreboard.readme"],
    "gan_transform/claims.json", "No such file",
)
case(
    "result-none_to_score", params(), command("colourisation.score prepared runs evaluated out"),
    "prepared/meta.json", "No such file",
)

bad_notebook("cut", text('{"cells": [', "n.ipynb"), UNREADABLE, "JSON")
bad_notebook("list", text("[]", "n.ipynb"), UNREADABLE)
bad_notebook("without_cells", text(FORMAT % "", "n.ipynb"), UNREADABLE, "cells")
bad_notebook("cells_of_words", text(FORMAT % ', "cells": ["x"]', "n.ipynb"), UNREADABLE)
bad_notebook(  # found by fuzzing
    "version_is_a_list", text('{"nbformat": 4, "nbformat_minor": [], "cells": []}', "n.ipynb"),
    UNREADABLE,
)
bad_notebook("missing", nothing, UNREADABLE, "No such file")
bad_notebook("untagged", notebook("params"), "one cell tagged 'parameters'", "found 0")
bad_notebook(
    "misspelled_parameter", notebook(), "found figres", "did you mean 'figures'?", run=misspelled,
)
bad_notebook(
    "unknown_profile", both(notebook(source=ASK), params()), "cell 'ask' failed", "profiles.smokey",
    "did you mean 'smoke'?",
)

case("checkpoint-in_use", nothing, trained_twice, "is in use", "one process a run", "it resumes")
case(
    "checkpoint-folder_is_a_file", both(colour_data, text("", ".ckpt")), TRAIN,
    "cannot hold checkpoints", "set CKPT_DIR",
)
case(
    "reference-not_mounted", committed("cifar10-jpeg"), ["gan_transform.reference", "out/x.json"],
    "CIFAR10_JPEG_ROOT is not set",
)
case(
    "reference-misspelled", committed("synthfaces256"),
    ["colourisation.reference", "synthfaces", "out/x.json"], "did you mean 'synthfaces256'?",
)
# fmt: on


# ---------------------------------------------------------------- the tests


def everything(folder: Path) -> dict[bytes, object]:
    """Return what every file below ``folder`` holds, but what is hidden: caches and locks."""
    found: dict[bytes, object] = {}
    for root, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if not name.startswith(b".")]
        for name in [*folders, *files]:
            path = os.path.join(root, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif not os.path.isfile(path):
                found[path] = "a folder, a pipe"
            elif not name.startswith(b"."):
                with open(path, "rb") as file:
                    found[path] = zlib.crc32(file.read())
    return found


def call(words: list[str]) -> None:
    """Do what ``python -m stages.<module> ...`` does, in this process."""
    name, *arguments = words
    module = importlib.import_module(f"stages.{name}")
    if hasattr(module, "main"):
        module.main(arguments)
    else:
        stage.run(getattr(module, name.split(".")[1]), name, arguments)


def without_bars(said: str) -> list[str]:
    """Return the lines on stderr that are no progress bars."""
    return [line for line in re.split(r"[\r\n]+", said) if not BAR.match(line)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a working folder with finished work in out/ and nothing else, and go there."""
    prints = tmp_path / "fingerprints"
    prints.mkdir()
    for path in fingerprint.FINGERPRINTS.glob("emoji*.json"):
        (prints / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(fingerprint, "FINGERPRINTS", prints)
    monkeypatch.setenv("TINY_ROOT", str(tmp_path / "tiny"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.delenv("CKPT_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "finished.npz").write_bytes(b"finished work")
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_sentence_and_nothing_is_touched(case, place, capsys):
    case.spoil(place)
    before = everything(place)
    capsys.readouterr()
    if callable(case.run):
        with pytest.raises(InputError) as error:
            case.run(place)
        said = [f"error: {error.value}"]
    else:
        with pytest.raises(SystemExit) as stop:
            call(case.run)
        said = without_bars(capsys.readouterr().err)
        assert stop.value.code == case.status, said
    assert len(said) == 1 and said[0].startswith("error: ") and len(said[0]) < 2000
    assert case.status == 3 or SENTENCE.fullmatch(said[0])
    for words in case.says:
        assert words in said[0]
    assert everything(place) == before
    assert not list(place.rglob("ran")), "code in the input has run"
    assert not list(place.rglob("*.new")), "a half-written file remains"


def test_the_table_has_no_case_twice():
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.mark.parametrize(
    "name", ["params-misspelled_key", "folder-newline_in_a_name", "request-pickle_with_code"]
)
def test_a_process_of_its_own_says_the_same(name, place):
    (case,) = (case for case in CASES if case.name == name)
    case.spoil(place)
    module, *arguments = case.run
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == case.status
    (said,) = without_bars(done.stderr)
    assert SENTENCE.fullmatch(said) and all(words in said for words in case.says)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="zero_bytes"),
        pytest.param(lambda path: path.write_text("no checkpoint"), id="text"),
        pytest.param(lambda path: torch.save([1, 2], path), id="list"),
        pytest.param(lambda path: (torch.save({"step": 1}, path), cut(path)), id="truncated"),
        pytest.param(pickled, id="pickle_with_code"),
        pytest.param(lambda path: torch.save({"w": Bomb(path)}, path), id="archive_with_code"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
    ],
)
def test_a_damaged_checkpoint_is_a_line_and_a_fresh_start(place, capsys, content):
    checkpoint = Checkpoint("run", {"a": 1})
    checkpoint.folder.mkdir(parents=True)
    content(checkpoint.file)
    assert checkpoint.load() is None
    (said,) = capsys.readouterr().out.splitlines()
    assert "state.pt: damaged" in said and said.endswith("starting from step 0")
    assert not list(place.rglob("ran")), "code in the checkpoint has run"


@pytest.mark.skipif(
    importlib.util.find_spec("onnx") is None, reason="onnx is optional and is not installed"
)
def test_a_graph_without_one_float_output_is_one_sentence():
    import onnx

    graph = onnx.helper.make_graph([], "empty", [], [])
    with pytest.raises(InputError, match="one output of float32 features, found 0 outputs; "):
        with_tail(onnx.helper.make_model(graph))
