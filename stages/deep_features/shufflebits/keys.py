"""Keys of ShuffleBits: a permutation of the bit positions of a word, and where it comes from.

Sec. II-B, f: bit i of the plain word becomes bit perm[i] of the cipher, bit 0 the lowest. The
authors' code gathers on a string that starts with the highest bit, out[k] = in[index[k]]; see
:meth:`BitKey.from_index_array`.

Departures: the authors draw one key for all, by NumPy's generator from the fixed seed 0: it is no
secret, and the generator, whose state has 128 bits, is not meant for secrets; here a
key is drawn per request from a 32-byte master secret by HKDF-SHA256 (RFC 5869) and the ChaCha20 key
stream (RFC 8439), and a request is served once.
"""

import fcntl
import hashlib
import math
import operator
import secrets
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stages.common.errors import InputError
from stages.common.files import read_json, write_json
from stages.deep_features.shufflebits.benes import route

WIDTHS = (8, 16, 32, 64)  # bits of a word: int8, binary16 or bfloat16, binary32, binary64
MAGIC = b"SBK1"  # of a serialised key
SALT = b"shufflebits-v1"
SECRET_BYTES = 32  # of a master secret and of a seed
CHUNK = 256  # bytes of key stream drawn at once


class RequestRegister:
    """Remember which requests have a key, so that none gets the same key twice.

    Parameters
    ----------
    path : a JSON file that keeps the register over runs; it is replaced whole, under a lock, so
        that a kill leaves the old or the new one and of two processes one is refused. None: in
        memory only. It holds SHA-256 digests of the request ids, no id and no key.
    """

    def __init__(self, path: Path | None = None):
        self._path = path
        self._claimed: set[str] = set()

    def claim(self, request_id: str, width: int = 32) -> None:
        """Enter a request, once for each width of words.

        Raises
        ------
        InputError
            If it is entered already, or the file cannot be read or written.
        """
        entry = hashlib.sha256(_info(request_id, width)).hexdigest()
        with self._locked():
            claimed = self._read()
            if entry in claimed:
                raise InputError(
                    f"request {request_id!r}",
                    f"has a key of {width} bits already",
                    expected="an id for every request, used once",
                    found="a second use",
                    remedy="give the request a new id; derive with register=None only to decrypt",
                )
            claimed.add(entry)
            if self._path is not None:
                write_json(self._path, {"register": SALT.decode(), "claimed": sorted(claimed)})
            self._claimed = claimed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        lock = self._path.with_name(f".{self._path.name}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            file = lock.open("w")
        except OSError as error:
            raise InputError(
                self._path,
                "cannot be locked",
                expected="a register in a writable folder",
                found=error.strerror or error,
                remedy="fix the permissions or choose another path",
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> set[str]:
        if self._path is None:
            return set(self._claimed)
        if not self._path.exists():
            if not self._claimed:
                return set()
            found = "no file, after one was written"
        else:
            content = read_json(self._path)
            claimed = content.get("claimed")
            if content.get("register") == SALT.decode() and isinstance(claimed, list):
                return set(map(str, claimed))
            found = f"the keys {sorted(content)}"
        raise InputError(
            self._path,
            "is not a register of requests",
            expected=f"a JSON object with register: {SALT.decode()} and a list claimed",
            found=found,
            remedy="restore it; without it keys may be used twice",
        )


class BitKey:
    """The secret permutation f of the bits of a word.

    Its ``repr`` is the fingerprint; the permutation is shown nowhere unless asked for.

    Parameters
    ----------
    perm : perm[i] is where bit i goes; a permutation of 0 .. w - 1 with w of 8, 16, 32, 64.

    Raises
    ------
    InputError
        If ``perm`` has another length or is no permutation.
    """

    __slots__ = ("_masks", "_perm")

    def __init__(self, perm: Sequence[int] | UInt8[np.ndarray, " w"]):
        try:
            order = tuple(operator.index(i) for i in perm)
        except TypeError as error:
            raise InputError(
                "a key of ShuffleBits",
                "is no permutation",
                expected="whole numbers",
                found=error,
                remedy="draw it by BitKey.derive or BitKey.random",
            ) from error
        check_width(len(order))
        if sorted(order) != list(range(len(order))):
            raise InputError(
                "a key of ShuffleBits",
                "is no permutation",
                expected=f"every position 0 to {len(order) - 1} once",
                found=f"{len(set(order) & set(range(len(order))))} of them",
                remedy="draw it by BitKey.derive or BitKey.random",
            )
        self._perm = order
        self._masks: tuple[int, ...] | None = None

    @classmethod
    def identity(cls, width: int = 32) -> "BitKey":
        """Return the key that leaves every bit in place."""
        return cls.rotation(0, width)

    @classmethod
    def rotation(cls, left: int, width: int = 32) -> "BitKey":
        """Return the rotation to the left (towards higher bits) by ``left`` places, Fig. 2."""
        check_width(width)
        return cls([(i + left) % width for i in range(width)])

    @classmethod
    def from_index_array(cls, index: Sequence[int]) -> "BitKey":
        """Return the key of the authors' code: character k, highest bit first, is of index[k].

        Raises
        ------
        InputError
            If it is no permutation of 8, 16, 32 or 64 positions.
        """
        width = len(index)
        check_width(width)
        cls(index)  # refuses what is no permutation
        perm = [0] * width
        for k, source in enumerate(index):
            perm[width - 1 - int(source)] = width - 1 - k
        return cls(perm)

    @classmethod
    def random(
        cls, source: np.random.Generator | bytes | None = None, *, width: int = 32
    ) -> "BitKey":
        """Draw a key, all w! being equally likely.

        Parameters
        ----------
        source : 32 secret bytes, of which the ChaCha20 key stream is drawn; a NumPy generator, for
            experiments that repeat and hide nothing; None: secret bytes of the operating system.

        Raises
        ------
        InputError
            If the width is not 8, 16, 32 or 64, or the seed has not 32 bytes.
        """
        check_width(width)
        if isinstance(source, np.random.Generator):
            return cls(source.permutation(width).astype(np.uint8))
        seed = secrets.token_bytes(SECRET_BYTES) if source is None else source
        check_secret(seed, "the seed of a key")
        return cls(shuffled(width, key_stream(seed)))

    @classmethod
    def derive(
        cls, master: bytes, request_id: str, *, width: int = 32, register: RequestRegister | None
    ) -> "BitKey":
        """Return the key of a request: HKDF-SHA256, ChaCha20 stream, Fisher-Yates with rejection.

        Parameters
        ----------
        master : 32 secret bytes.
        request_id : any name that is used for one request only.
        register : where the request is entered when its key is made to encrypt. None: the key of a
            request of before, to decrypt.

        Raises
        ------
        InputError
            If the master has not 32 bytes, the id is empty, or the register has it already.
        """
        check_width(width)
        seed = hkdf(master, _info(request_id, width), salt=SALT)
        if register is not None:
            register.claim(request_id, width)
        return cls(shuffled(width, key_stream(seed)))

    @property
    def width(self) -> int:
        """Bits of a word."""
        return len(self._perm)

    @property
    def perm(self) -> UInt8[np.ndarray, " w"]:
        """The secret: perm[i] is where bit i goes."""
        return np.array(self._perm, np.uint8)

    @property
    def masks(self) -> tuple[int, ...]:
        """The secret as masks of the delta swaps, see ``benes``; routed once."""
        if self._masks is None:
            self._masks = route(self._perm)
        return self._masks

    @property
    def fingerprint(self) -> str:
        """The first 8 bytes of the SHA-256 of the serialised key, 16 hexadecimal digits.

        It tells keys apart. A key of 8 or 16 bits can be found from it by trying all.
        """
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    def inverse(self) -> "BitKey":
        """Return g = f^-1, the key that decrypts."""
        back = [0] * self.width
        for i, j in enumerate(self._perm):
            back[j] = i
        return BitKey(back)

    def after(self, first: "BitKey") -> "BitKey":
        """Return the key that does ``first`` and then this one: f o first.

        Raises
        ------
        InputError
            If the two have different widths.
        """
        if first.width != self.width:
            raise InputError(
                "two keys of ShuffleBits",
                "do not compose",
                expected="one width",
                found=f"{first.width} and {self.width} bits",
                remedy="draw both for the same type of numbers",
            )
        return BitKey([self._perm[j] for j in first._perm])

    def to_bytes(self) -> bytes:
        """Serialise: "SBK1", the width, the permutation, a byte each, and their CRC-32."""
        body = MAGIC + bytes([self.width, *self._perm])
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, content: bytes) -> "BitKey":
        """Invert :meth:`to_bytes`.

        Raises
        ------
        InputError
            If it is no key, is cut, or its checksum is wrong.
        """
        body, crc = content[:-4], content[-4:]
        if not body.startswith(MAGIC) or len(body) <= len(MAGIC):
            found = f"{len(content)} bytes without {MAGIC.decode()}"
        elif len(body) != len(MAGIC) + 1 + body[len(MAGIC)]:
            found = f"{len(content)} bytes"
        elif crc != struct.pack("<I", zlib.crc32(body)):
            found = "another checksum"
        else:
            return cls(list(body[len(MAGIC) + 1 :]))
        raise InputError(
            "a serialised key of ShuffleBits",
            "cannot be read",
            expected=f"{MAGIC.decode()}, width, permutation and their CRC-32",
            found=found,
            remedy="copy it again",
        )

    def to_lehmer(self) -> bytes:
        """Return the rank of the permutation among all w!, big-endian, as short as can be.

        15 bytes for 32 bits. No checksum: every rank below w! is a key.
        """
        left, rank = list(range(self.width)), 0
        for i in self._perm:
            place = left.index(i)
            rank = rank * len(left) + place
            left.pop(place)
        return rank.to_bytes(lehmer_bytes(self.width), "big")

    @classmethod
    def from_lehmer(cls, content: bytes, width: int = 32) -> "BitKey":
        """Invert :meth:`to_lehmer`.

        Raises
        ------
        InputError
            If the bytes have another number or are no rank below w!.
        """
        check_width(width)
        rank = int.from_bytes(content, "big")
        if len(content) != lehmer_bytes(width) or rank >= math.factorial(width):
            raise InputError(
                "the rank of a key",
                "has the wrong range",
                expected=f"{lehmer_bytes(width)} bytes, below {width}!",
                found=f"{len(content)} bytes of {rank.bit_length()} bits",
                remedy="copy it again",
            )
        places = []
        for size in range(1, width + 1):
            rank, place = divmod(rank, size)
            places.append(place)
        left = list(range(width))
        return cls([left.pop(place) for place in reversed(places)])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BitKey) and other._perm == self._perm

    def __hash__(self) -> int:
        return hash(self._perm)

    def __repr__(self) -> str:
        return f"BitKey({self.width} bits, fingerprint {self.fingerprint})"


def log2_keys(width: int) -> float:
    """Return log2(w!), the bits of a key; 117.66 for 32."""
    return math.lgamma(width + 1) / math.log(2)


def lehmer_bytes(width: int) -> int:
    """Return how many bytes hold a rank below w!."""
    return ((math.factorial(width) - 1).bit_length() + 7) // 8


def hkdf(master: bytes, info: bytes, *, salt: bytes, length: int = SECRET_BYTES) -> bytes:
    """Derive ``length`` secret bytes by HKDF-SHA256 (RFC 5869).

    Raises
    ------
    InputError
        If the master has not 32 bytes.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    check_secret(master, "the master secret")
    return HKDF(SHA256(), length, salt, info).derive(master)


def key_stream(seed: bytes) -> Iterator[int]:
    """Yield the bytes of the ChaCha20 key stream of a 32-byte seed, nonce and counter 0."""
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    stream = Cipher(ChaCha20(seed, bytes(16)), mode=None).encryptor()
    while True:
        yield from stream.update(bytes(CHUNK))


def shuffled(width: int, stream: Iterator[int]) -> list[int]:
    """Return a permutation of 0 .. w - 1 by Fisher-Yates, each draw uniform by rejection.

    Parameters
    ----------
    stream : uniform bytes; those at and above the largest multiple of the range are skipped.
    """
    perm = list(range(width))
    for i in range(width - 1, 0, -1):
        limit = 256 - 256 % (i + 1)
        j = next(byte for byte in stream if byte < limit) % (i + 1)
        perm[i], perm[j] = perm[j], perm[i]
    return perm


def check_width(width: int) -> None:
    """Refuse words of which there is no type of numbers.

    Raises
    ------
    InputError
        If the width is not 8, 16, 32 or 64.
    """
    if width not in WIDTHS:
        raise InputError(
            "a key of ShuffleBits",
            "has a wrong width",
            expected="8, 16, 32 or 64 bits",
            found=width,
            remedy="take the bits of the numbers to encrypt: 32 for binary32",
        )


def check_secret(secret: bytes, name: str) -> None:
    """Refuse secrets that are too short to be any.

    Raises
    ------
    InputError
        If there are not 32 bytes.
    """
    if len(secret) != SECRET_BYTES:
        raise InputError(
            name,
            "has another length",
            expected=f"{SECRET_BYTES} bytes",
            found=len(secret),
            remedy="draw it by secrets.token_bytes(32) and keep it",
        )


def _info(request_id: str, width: int) -> bytes:
    if not request_id:
        raise InputError(
            "a request",
            "has no id",
            expected="a name that is used once",
            found="an empty one",
            remedy="count the requests, or draw a UUID for each",
        )
    return f"{request_id}|{width}".encode()
