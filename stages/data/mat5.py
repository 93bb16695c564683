"""What a MATLAB file says it holds, before SciPy makes room for it.

SciPy believes the dimensions in a file: a damaged struct of 2 ** 30 elements in 400 bytes keeps it
at work for minutes. Here the tags are walked (MAT-File Format, Level 5: 8 bytes of type and size
before each element), and an array of more elements than bytes is refused.
"""

import math
import struct
import zlib

HEADER = 128  # bytes of text, version and byte order
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, OBJECT = 1, 2, 3  # classes of arrays whose elements are arrays
SPARSE = 5
LARGEST = 2**28  # bytes that a compressed variable may hold


def refuse_inflated(content: bytes) -> None:
    """Refuse a file in which an array, at any depth, has more elements than it has bytes.

    Raises
    ------
    ValueError
        If it has one, or a sparse array, a compressed variable of more than 2 ** 28 bytes, or an
        element that ends after what it lies in.
    """
    order = "<" if content[126:128] == b"IM" else ">"
    at = HEADER
    while at < len(content):
        kind, data, at = _element(content, at, order)
        if kind == COMPRESSED:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(data, LARGEST)
            if unpacker.unconsumed_tail:
                raise ValueError(f"a variable of more than {LARGEST} bytes")
            kind, data, _ = _element(data, 0, order)
        if kind == MATRIX:
            _walk(data, order)


def _element(content: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Return the type of the element at ``at``, its data, and where the next one begins."""
    if at + 8 > len(content):
        raise ValueError(f"an element that begins {len(content) - at} bytes before the end")
    kind, size = struct.unpack_from(f"{order}II", content, at)
    begin, end = at + 8, at + 8 + size
    following = end if kind == COMPRESSED else at + 8 + -(-size // 8) * 8
    if kind >> 16:  # up to four bytes of data stand in the tag itself
        kind, size = kind & 0xFFFF, kind >> 16
        begin, end, following = at + 4, at + 4 + size, at + 8
    if end > min(following, len(content)):
        raise ValueError(f"an element of {size} bytes where {len(content) - begin} are left")
    return kind, content[begin:end], following


def _walk(data: bytes, order: str) -> None:
    """Look at an array: flags, dimensions, a name, for some a header, then its elements."""
    if not data:  # an empty element of a cell array
        return
    _, flags, at = _element(data, 0, order)
    _, dimensions, at = _element(data, at, order)
    _, _, at = _element(data, at, order)
    made = struct.unpack_from(f"{order}I", flags)[0] & 0xFF
    shape = struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions)
    count = math.prod(shape)
    if made == SPARSE or min(shape, default=0) < 0 or count > len(data) - at:
        raise ValueError(f"an array of the shape {shape} in {len(data) - at} bytes")
    if made not in (CELL, STRUCT, OBJECT):
        return
    if made == OBJECT:
        _, _, at = _element(data, at, order)
    if made != CELL:
        for _ in range(2):  # the longest name's length, and the names
            _, _, at = _element(data, at, order)
    while at < len(data):
        _, inner, at = _element(data, at, order)
        _walk(inner, order)
