"""Decode one photograph file into RGB, or say in one sentence why not."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from stages.common.errors import InputError
from stages.data.fingerprint import HELP
from stages.data.resize import resize

PNG_START, PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # where a PNG says how many bits a channel has
EXPECTED = "an 8-bit RGB or grey JPEG or PNG"


@dataclass(frozen=True)
class Photo:
    """A decoded file: ``pixels`` uint8 (s, s, 3), whether it has no colour, its bytes' SHA-256."""

    pixels: UInt8[np.ndarray, "s s 3"]
    grey: bool
    sha256: str


def read_photo(path: Path, *, size: int, crop: bool = False, cmyk: bool = False) -> Photo:
    """Read a JPEG or PNG and bring it to ``size`` x ``size``.

    Grey images become RGB. Images without colour (grey files, and RGB files whose three channels
    are equal) say so; palettes are looked up; an alpha channel must be opaque.
    EXIF orientation is ignored, as by torchvision. ``cmyk`` allows CMYK, converted as PIL does.

    Raises
    ------
    InputError
        If the file cannot be read, is empty, truncated, not an image, too large, or has CMYK,
        16-bit or transparent pixels.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _bad(path, "cannot be read", getattr(error, "strerror", None) or error) from error
    if not content:
        raise _bad(path, "is empty", "0 bytes")
    pixels, grey = _decode(path, content, cmyk)
    return Photo(resize(pixels, size, crop=crop), grey, hashlib.sha256(content).hexdigest())


def _decode(path: Path, content: bytes, cmyk: bool) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(content), formats=["JPEG", "PNG"])
            size = "x".join(map(str, image.size))
            _check_mode(path, content, image, cmyk)
            image.load()
            alpha = _alpha(image)
            pixels = np.array(image.convert("RGB"))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            limit = f"at most {Image.MAX_IMAGE_PIXELS} pixels"
            raise _bad(path, "is too large an image", str(error), limit) from error
        except UnidentifiedImageError as error:
            found = f"{len(content)} bytes of something else"
            raise _bad(path, "is not an image", found) from error
        except InputError:
            raise
        except Exception as error:  # PIL raises many kinds on damaged files
            found = f"{len(content)} bytes that end or break early ({error})"
            raise _bad(path, "is a truncated or damaged image", found) from error
    if alpha is not None and alpha.min() < 255:
        found = f"{np.mean(alpha < 255):.0%} transparent pixels in {size}"
        raise _bad(path, "has transparent pixels", found)
    return pixels, bool((pixels == pixels[..., :1]).all())


def _alpha(image: Image.Image) -> np.ndarray | None:
    """Return how opaque each pixel is, 0..255; None if the format says that all are."""
    return np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None


def _check_mode(path: Path, content: bytes, image: Image.Image, cmyk: bool) -> None:
    if image.mode in ("CMYK", "YCCK") and not cmyk:
        raise _bad(path, "is a CMYK image", f"mode {image.mode}")
    deep_png = content.startswith(PNG_START) and content[PNG_DEPTH] == 16
    if deep_png or image.mode.startswith(("I", "F")):
        raise _bad(path, "is a 16-bit image", f"16 bits a channel, mode {image.mode}")


def _bad(path: Path, what: str, found: object, expected: str = EXPECTED) -> InputError:
    remedy = f"restore or convert the file, or remove it and register the folder again, {HELP}"
    return InputError(path, what, expected=expected, found=found, remedy=remedy)
