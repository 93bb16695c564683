"""What protects an image: one folder a scheme, holding all that a client needs, and how to use it.

``encrypt`` writes the folder: meta.json (:class:`Scheme`), the key or the weights of h_p of each
seed. :func:`load_cipher` reads it back as a function of images. Transforms import torch, the
ciphers need NumPy only.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError, shown, suggestion
from stages.common.files import read_json, read_npz, write_json
from stages.common.params import NonNegativeFloat, NonNegativeInt, describe, fits
from stages.gan_transform.ciphers import aes_ctr, degraded, pixel_based, tanaka

Kind = Literal["identity", "tanaka", "pe", "aes", "blur", "random_sign", "transform"]
Arm = Literal["client", "server", "none"]
Images = UInt8[np.ndarray, "n h w 3"]
Encrypt = Callable[[Images, str], Images]


@dataclass(frozen=True)
class Scheme:
    """One line of ``gan_transform.encrypt.schemes`` in params.yaml.

    Attributes
    ----------
    cipher : what is done to an image.
    keys : of ``pe``: one key for all images, or one an image.
    shuffle : of ``pe``: permute the colours of each pixel, too.
    variant : of ``transform``: whose h_p.
    sigma : of ``blur``, pixels.
    epsilon : of ``random_sign``, the magnitude, 0..255.
    augment : how the classifier's images are augmented, the first being Table I's: ``client``
        (plain images, encrypted anew in each epoch), ``server`` (the ciphers), ``none``.
    """

    scheme: str
    cipher: Kind
    keys: Literal["same", "diff"] | None = None
    shuffle: bool = False
    variant: str | None = None
    sigma: float | None = None
    epsilon: int | None = None
    augment: tuple[Arm, ...] = ("client",)


SPLITS = ("train", "test", "transfer_train", "transfer_test", "attack_train", "attack_test")
MOST_IMAGES = 10**7  # of a split: no two images share a block of AES's key stream
ORDERS = len(pixel_based.ORDERS)
REQUIRED = {"pe": "keys", "transform": "variant", "blur": "sigma", "random_sign": "epsilon"}
KINDS = ("identity", "tanaka", "pe", "aes", "blur", "random_sign", "transform")
ARMS = ("client", "server", "none")
VALUES = {  # of a scheme, and what they take; null: what the scheme has by default
    "keys": Literal["same", "diff"],
    "shuffle": bool,
    "variant": str,
    "sigma": NonNegativeFloat,
    "epsilon": NonNegativeInt,
}


def parse_scheme(name: str, line: Any, where: str | Path = "params.yaml") -> Scheme:
    """Check one line of params.yaml.

    Raises
    ------
    InputError
        If a key is unknown or missing, a cipher or an arm does not exist, or a value has another
        type.
    """

    def refuse(what: str, expected: object, found: object, remedy: str) -> InputError:
        return InputError(
            where, f"scheme {name!r} {what}", expected=expected, found=found, remedy=remedy
        )

    if not isinstance(line, Mapping):
        raise refuse(
            "has the wrong layout", "a map of keys to values", shown(line), "write {cipher: ...}"
        )
    known = [f.name for f in fields(Scheme) if f.name != "scheme"]
    for key in line:
        if key not in known:
            raise refuse(
                f"has the unknown key {key!r}",
                f"of {', '.join(known)}",
                repr(line[key]),
                suggestion(str(key), known),
            )
    kind = line.get("cipher")
    if kind not in KINDS:
        raise refuse("has no such cipher", ", ".join(KINDS), repr(kind), "correct its cipher")
    needed = REQUIRED.get(str(kind))
    if needed and line.get(needed) is None:
        raise refuse(f"lacks {needed!r}", f"it for the cipher {kind}", "none", "add it")
    arms = line.get("augment", ("client",))
    if not isinstance(arms, (list, tuple)) or not arms or any(arm not in ARMS for arm in arms):
        expected = f"a list of {', '.join(ARMS)}"
        raise refuse("has a wrong 'augment'", expected, shown(arms), "correct it")
    for key, annotation in VALUES.items():
        if line.get(key) is not None and not fits(line[key], annotation):
            raise refuse(
                f"has a wrong {key!r}", describe(annotation), shown(line[key]), "correct it"
            )
    return Scheme(scheme=name, **{**line, "augment": tuple(arms)})  # type: ignore[arg-type]


def read_scheme(folder: Path) -> Scheme:
    """Read a folder's meta.json.

    Raises
    ------
    InputError
        If it is missing or damaged.
    """
    meta = read_json(folder / "meta.json")
    line = {k: v for k, v in meta.items() if k in {f.name for f in fields(Scheme)} - {"scheme"}}
    return parse_scheme(str(meta.get("scheme")), line, folder / "meta.json")


def write_scheme(folder: Path, scheme: Scheme, **more: object) -> None:
    """Write a folder's meta.json: the scheme and ``more``."""
    write_json(folder / "meta.json", {**asdict(scheme), **more})


def _own_seed(seed: int, split: str) -> int:
    return int(np.random.SeedSequence([seed, SPLITS.index(split)]).generate_state(1)[0])


def make_keys(
    scheme: Scheme, seed: int, splits: Mapping[str, tuple[int, int, int]]
) -> dict[str, np.ndarray]:
    """Draw a scheme's key; ``splits``: name -> number of images, height, width in pixels.

    PE with one key for all has the same for all splits of one size; with different keys one an
    image of each split. A cipher without a key gives {}.
    """
    if scheme.cipher == "tanaka":
        return {"key": tanaka.make_key(seed)}
    if scheme.cipher == "aes":
        return {"key": aes_ctr.make_key(seed)}
    if scheme.cipher == "random_sign":
        return {"key": np.array([seed])}
    if scheme.cipher != "pe":
        return {}
    keys = {}
    for split, (n, h, w) in splits.items():
        if scheme.keys == "same":
            bits, perm = pixel_based.make_key(seed, 1, h, w)
        else:
            bits, perm = pixel_based.make_key(_own_seed(seed, split), n, h, w)
        keys[f"bits_{split}"] = bits
        if scheme.shuffle:
            keys[f"perm_{split}"] = perm
    return keys


def read_keys(path: Path, scheme: Scheme) -> dict[str, np.ndarray]:
    """Read the arrays that :func:`make_keys` made.

    Raises
    ------
    InputError
        If the file is missing or damaged, or holds what is no key of the scheme's cipher.
    """
    keys = read_npz(path)
    if scheme.cipher == "pe":
        wanted = {f"bits_{split}" for split in SPLITS}
        wanted |= {f"perm_{split}" for split in SPLITS} if scheme.shuffle else set()
    else:
        wanted = {"key"}
    for name in sorted(wanted):
        key, kind = keys[name], "key" if name == "key" else name.split("_")[0]
        expected, right = {
            "bits": ("uint8 (k, h, w, 3), 0 or 1", _within(key, 4, 2)),
            "perm": (f"uint8 (k, h, w) below {ORDERS}", _within(key, 3, ORDERS)),
            "key": _single(scheme.cipher, key),
        }[kind]
        if not right:
            raise InputError(
                path,
                f"{name!r} is no key of the cipher {scheme.cipher}",
                expected=expected,
                found=f"{key.dtype} {key.shape}, of {len(np.unique(key))} different values",
                remedy="delete it and encrypt anew (dvc repro)",
            )
    return keys


def _within(key: np.ndarray, axes: int, end: int) -> bool:
    """Say whether a key has so many axes and its values are 0 .. end - 1, in 8 bits."""
    return key.dtype == np.uint8 and key.ndim == axes and bool((key < end).all())


def _single(cipher: Kind, key: np.ndarray) -> tuple[str, bool]:
    """Return what the array ``key`` of a cipher should be, and whether it is that."""
    whole = key.dtype.kind in "iu" and key.ndim == 1
    if cipher == "tanaka":
        right = whole and sorted(key.tolist()) == list(range(tanaka.NIBBLES))
        return f"each of 0 .. {tanaka.NIBBLES - 1} once", right
    if cipher == "aes":
        right = key.dtype == np.uint8 and key.shape == (aes_ctr.KEY_BYTES,)
        return f"uint8 ({aes_ctr.KEY_BYTES},)", right
    return "one whole number, 0 or more", whole and len(key) == 1 and int(key[0]) >= 0


def load_cipher(folder: Path, seed: int) -> Encrypt:
    """Return ``encrypt(images, split)`` of the scheme in ``folder`` with the key of ``seed``.

    Images are uint8 (n, h, w, 3); of PE with different keys all images of the split in their order.

    Raises
    ------
    InputError
        If meta.json, the key or the weights are missing, damaged or of another cipher.
    """
    scheme = read_scheme(folder)
    if scheme.cipher == "identity":
        return lambda images, split: images
    if scheme.cipher == "blur":
        sigma = scheme.sigma
        assert sigma is not None
        return lambda images, split: degraded.blur(images, sigma)
    if scheme.cipher == "transform":
        return _load_transform(folder, seed)
    keys = read_keys(folder / f"key-s{seed}.npz", scheme)
    if scheme.cipher == "tanaka":
        return lambda images, split: tanaka.encrypt(images, keys["key"])
    if scheme.cipher == "aes":
        return lambda images, split: aes_ctr.encrypt(
            images, keys["key"], first=SPLITS.index(split) * MOST_IMAGES
        )
    if scheme.cipher == "random_sign":
        epsilon = scheme.epsilon
        assert epsilon is not None
        return lambda images, split: degraded.random_sign(
            images, epsilon, _own_seed(int(keys["key"][0]), split)
        )
    return lambda images, split: pixel_based.encrypt(
        images, keys[f"bits_{split}"], keys.get(f"perm_{split}")
    )


def _load_transform(folder: Path, seed: int) -> Encrypt:
    import torch

    from stages.common.device import evaluation_device
    from stages.gan_transform.protection import load_translator, translate

    widths = read_json(folder / "meta.json")["widths"]
    G = load_translator(folder / f"generator-s{seed}.safetensors", widths, evaluation_device())
    return lambda images, split: translate(
        G, torch.from_numpy(np.ascontiguousarray(images))
    ).numpy()
