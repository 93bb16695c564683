"""XorStream: the ChaCha20 cipher as a layer, what ShuffleBits could have been at its price.

RFC 8439, Sec. 2.3 and 2.4, in 32-bit integer operations on tensors: 62 a word, about as many as the
plain form of ShuffleBits. It conceals (a fresh nonce for each message given) and does not protect
against change; ``aes`` does both.
"""

import torch
from jaxtyping import Int32
from torch import Tensor, nn

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import NONCE_BYTES, check_nonce
from stages.deep_features.shufflebits.keys import (
    SECRET_BYTES,
    RequestRegister,
    check_secret,
    hkdf,
)
from stages.deep_features.shufflebits.module import INTEGERS, ShuffleBits, UnshuffleBits

CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)  # "expand 32-byte k"
BLOCK_WORDS = 16
ROUNDS = 20
QUARTERS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
SALT = b"xorstream-v1"


def rotated(x: Tensor, left: int) -> Tensor:
    """Rotate 32-bit words to the left; the shift to the right copies the sign, so mask it."""
    return (x << left) | ((x >> (32 - left)) & ((1 << left) - 1))


def key_stream(
    key: Int32[Tensor, "8"], nonce: Int32[Tensor, "3"], counter: int, blocks: int
) -> Int32[Tensor, "blocks 16"]:
    """Return blocks ``counter``, ``counter + 1``, ... of the key stream, Sec. 2.3.

    Parameters
    ----------
    key, nonce : as little-endian words.
    """
    numbers = torch.arange(counter, counter + blocks, device=key.device)
    start = [key.new_full((blocks,), word) for word in CONSTANTS]
    start += [key[i].expand(blocks) for i in range(8)]
    start += [numbers.to(torch.int32)]  # modulo 2^32
    start += [nonce[i].expand(blocks) for i in range(3)]
    state = list(start)
    for _ in range(ROUNDS // 2):
        for a, b, c, d in QUARTERS:
            state[a] = state[a] + state[b]
            state[d] = rotated(state[d] ^ state[a], 16)
            state[c] = state[c] + state[d]
            state[b] = rotated(state[b] ^ state[c], 12)
            state[a] = state[a] + state[b]
            state[d] = rotated(state[d] ^ state[a], 8)
            state[c] = state[c] + state[d]
            state[b] = rotated(state[b] ^ state[c], 7)
    return torch.stack([now + first for now, first in zip(state, start, strict=True)], 1)


class XorStream(nn.Module):
    """Encrypt: the bits of x xor the key stream. x and result are those of :class:`ShuffleBits`.

    Parameters
    ----------
    key : 32 secret bytes.
    nonce : 12 bytes, never twice with a key: a second message would cancel the stream.
    counter : the first block's number, 0 to 2^32 - 1.
    detach : as ShuffleBits has it.

    Raises
    ------
    InputError
        If key, nonce or counter are out of range.
    """

    key: Tensor
    nonce: Tensor

    def __init__(self, key: bytes, nonce: bytes, *, counter: int = 0, detach: bool = False):
        super().__init__()
        check_secret(key, "the ChaCha20 key")
        check_nonce(nonce)
        self.register_buffer("key", words_of(key), persistent=False)
        self.register_buffer("nonce", words_of(nonce), persistent=False)
        self.counter = counter
        self._numbers = ShuffleBits(detach=detach)
        self._check_blocks(0)

    @classmethod
    def derive(
        cls, master: bytes, request_id: str, *, register: RequestRegister | None
    ) -> "XorStream":
        """Return the stream of a request; arguments as of ``BitKey.derive``.

        Raises
        ------
        InputError
            As ``BitKey.derive``.
        """
        secret = hkdf(master, request_id.encode(), salt=SALT, length=SECRET_BYTES + NONCE_BYTES)
        if register is not None:
            register.claim(f"{SALT.decode()}|{request_id}")
        return cls(secret[:SECRET_BYTES], secret[SECRET_BYTES:])

    def forward(self, x: Tensor) -> Tensor:
        """Return x as integers, xor the stream.

        Raises
        ------
        InputError
            If x wants a gradient, is of another type, or is longer than the stream.
        """
        words = self._numbers.words(self._numbers.without_gradient(x))
        return self.mixed(words)

    def mixed(self, words: Tensor) -> Tensor:
        """Return integers xor the stream, element by element in C order.

        Raises
        ------
        InputError
            If the stream, of 2^32 blocks of 64 bytes less the counter, is too short.
        """
        size = words.element_size()
        blocks = -(-words.numel() * size // (4 * BLOCK_WORDS))
        self._check_blocks(blocks)
        stream = key_stream(self.key, self.nonce, self.counter, blocks).view(-1)
        return words ^ stream.view(INTEGERS[8 * size])[: words.numel()].view(words.shape)

    def _check_blocks(self, blocks: int) -> None:
        if not 0 <= self.counter <= (1 << 32) - max(1, blocks):
            raise InputError(
                "the ChaCha20 key stream",
                "is too short",
                expected="counters from 0 to 2^32 - 1",
                found=f"{blocks} blocks from {self.counter}",
                remedy="take a new nonce",
            )


class UnxorStream(XorStream):
    """Decrypt: what :class:`XorStream` gave -> the numbers, bit for bit.

    Parameters
    ----------
    dtype : as of :class:`~stages.deep_features.shufflebits.module.UnshuffleBits`.
    """

    def __init__(
        self, key: bytes, nonce: bytes, *, counter: int = 0, dtype: torch.dtype | None = None
    ):
        super().__init__(key, nonce, counter=counter)
        self._numbers = UnshuffleBits(dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return the integers xor the stream, as numbers.

        Raises
        ------
        InputError
            If the type of the numbers is not known, or x is longer than the stream.
        """
        return self.mixed(self._numbers.words(x)).view(self._numbers.plain_type(x))


def words_of(content: bytes) -> Int32[Tensor, " words"]:
    """Return bytes as little-endian words, with the bits of unsigned ones."""
    values = [
        int.from_bytes(content[i : i + 4], "little", signed=True) for i in range(0, len(content), 4)
    ]
    return torch.tensor(values, dtype=torch.int32)
