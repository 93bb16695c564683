"""ShuffleBits as a layer: the last one of a black box, so that only ciphers leave the device.

Sec. II-B. The delta swaps of ``benes`` as integer operations on tensors; under ``torch.compile``
they are one kernel that serves every key, since masks are data. No gradient: bits have none.

The cipher is integers. Ask for ``as_float`` only where a receiver wants floats, and do not compute
on them: up to 6 % are NaN, and a cast, even to double precision and back, sets a bit of the
signalling ones; some processors clear denormals.
"""

import torch
from jaxtyping import Int
from torch import Tensor, nn

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import check_words
from stages.deep_features.shufflebits.benes import shifts
from stages.deep_features.shufflebits.keys import BitKey

CIPHERS = {
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float64: torch.int64,
}
INTEGERS = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}
FLOATS = {32: torch.float32, 64: torch.float64}  # of 16 bits there are two


def mask_table(
    *keys: BitKey, device: torch.device | str | None = None
) -> Int[Tensor, "keys stages"]:
    """Return the masks of keys of one width, a row each, to be given to ``forward``.

    It is as secret as the keys.

    Raises
    ------
    InputError
        If there is no key, or widths differ.
    """
    widths = {key.width for key in keys}
    if len(widths) != 1:
        raise InputError(
            "a table of masks",
            "cannot be made",
            expected="keys of one width",
            found=f"{len(keys)} keys of the widths {sorted(widths)}",
            remedy="make a table for each type of numbers",
        )
    rows = [key.masks for key in keys]
    return torch.tensor(rows, dtype=INTEGERS[widths.pop()], device=device)


def delta_swaps(words: Tensor, masks: Tensor, *, inverse: bool = False) -> Tensor:
    """Permute the bits of signed integers; masks (stages,), or (B, stages) for rows of a batch."""
    masks = masks.reshape(*masks.shape[:-1], *[1] * (words.ndim - masks.ndim + 1), -1)
    order = list(enumerate(shifts(8 * words.element_size())))
    for k, shift in reversed(order) if inverse else order:
        swap = ((words >> shift) ^ words) & masks[..., k]
        words = words ^ swap ^ (swap << shift)
    return words


class ShuffleBits(nn.Module):
    """Encrypt: x of 16, 32 or 64-bit floats, or 8-bit integers -> signed integers of that size.

    Parameters
    ----------
    key : of the width of x; None if ``forward`` is always given masks. The masks are a buffer that
        no state dict holds.
    detach : take x without its gradient. False: x that wants one is refused.
    as_float : return the same storage as floats; see the top of the file.
    """

    inverse = False
    masks: Tensor | None

    def __init__(self, key: BitKey | None = None, *, detach: bool = False, as_float: bool = False):
        super().__init__()
        self.key = key
        self.detach = detach
        self.as_float = as_float
        self.register_buffer("masks", None if key is None else mask_table(key)[0], persistent=False)

    def forward(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Permute the bits of every number.

        Parameters
        ----------
        x : any shape and strides.
        masks : of :func:`mask_table`, instead of the key's: (stages,) for all, or (B, stages), one
            row of masks for each row of x.

        Raises
        ------
        InputError
            If x wants a gradient, is of another type, or masks and x do not fit.
        """
        words = self.words(self.without_gradient(x))
        cipher = delta_swaps(words, self.fitting(words, masks), inverse=self.inverse)
        return cipher.view(x.dtype) if self.as_float else cipher

    def without_gradient(self, x: Tensor) -> Tensor:
        """Return x itself, or detached; refuse it if a gradient would be lost unseen.

        Raises
        ------
        InputError
            If x wants a gradient and ``detach`` is off.
        """
        if x.requires_grad and torch.is_grad_enabled():
            if not self.detach:
                raise InputError(
                    "features to encrypt",
                    "want a gradient",
                    expected="none: bits have no gradient",
                    found="requires_grad",
                    remedy="encrypt under torch.no_grad(), or say detach=True",
                )
            return x.detach()
        return x

    def words(self, x: Tensor) -> Tensor:
        """Return x as integers of the same storage.

        Raises
        ------
        InputError
            If its type is not one of those that the class names.
        """
        if x.dtype in CIPHERS:
            return x.view(CIPHERS[x.dtype])
        if x.dtype is torch.int8:
            return x
        raise _type_error("features to encrypt", [*CIPHERS, torch.int8], x)

    def fitting(self, words: Tensor, masks: Tensor | None) -> Tensor:
        """Return the masks to use.

        Raises
        ------
        InputError
            If there are none, or their width, device or number does not fit ``words``.
        """
        if masks is None:
            masks = self.masks
        if masks is None:
            raise InputError(
                "ShuffleBits", "has no key", expected="a key, or masks with the features",
                found="neither", remedy="give one of them",
            )  # fmt: skip
        if masks is self.masks and self.key is not None:
            check_words(8 * words.element_size(), self.key)
        stages = len(shifts(8 * words.element_size()))
        rows = masks.shape[:-1]
        if (
            masks.dtype != words.dtype
            or masks.shape[-1:] != (stages,)
            or len(rows) > 1
            or (rows and (words.ndim == 0 or rows[0] != words.shape[0]))
        ):
            raise InputError(
                "the masks of ShuffleBits",
                "do not fit the features",
                expected=f"{words.dtype} ({stages},) or (B, {stages}) for features of B rows",
                found=f"{masks.dtype} {tuple(masks.shape)} for {tuple(words.shape)}",
                remedy="make them by mask_table from keys of the features' width",
            )
        return masks

    def extra_repr(self) -> str:
        """Name the key by its fingerprint."""
        return "masks with the features" if self.key is None else repr(self.key)


class UnshuffleBits(ShuffleBits):
    """Decrypt: what :class:`ShuffleBits` gave -> the numbers, bit for bit.

    Parameters
    ----------
    dtype : of the numbers: for ciphers of 16 bits torch.float16 or torch.bfloat16. None: float32,
        float64 or int8, by the size; a cipher viewed as floats keeps its type.
    """

    inverse = True

    def __init__(
        self, key: BitKey | None = None, *, dtype: torch.dtype | None = None, detach: bool = False
    ):
        super().__init__(key, detach=detach)
        self.dtype = dtype

    def forward(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Put the bits back; see :meth:`ShuffleBits.forward`.

        Raises
        ------
        InputError
            Also if the type of the numbers is not known or has another size than the cipher.
        """
        words = self.words(self.without_gradient(x))
        plain = delta_swaps(words, self.fitting(words, masks), inverse=True)
        return plain.view(self.plain_type(x))

    def words(self, x: Tensor) -> Tensor:
        """Return the cipher as integers.

        Raises
        ------
        InputError
            If it is neither integers of 8 to 64 bits nor floats of 16 to 64.
        """
        if x.dtype in CIPHERS:
            return x.view(CIPHERS[x.dtype])
        if x.dtype in INTEGERS.values():
            return x
        raise _type_error("a cipher of ShuffleBits", [*INTEGERS.values(), *CIPHERS], x)

    def plain_type(self, x: Tensor) -> torch.dtype:
        """Return the type of the numbers inside cipher ``x``.

        Raises
        ------
        InputError
            If it is not known or has another size.
        """
        bits = 8 * x.element_size()
        known = x.dtype if x.dtype in CIPHERS else FLOATS.get(bits, INTEGERS[bits])
        dtype = self.dtype or known
        if dtype.itemsize != x.element_size() or (bits == 16 and not dtype.is_floating_point):
            raise InputError(
                "a cipher of ShuffleBits",
                "does not say what is in it",
                expected=f"the type of the numbers, of {bits} bits, as dtype",
                found=self.dtype,
                remedy="say dtype=torch.float16 or torch.bfloat16 for ciphers of 16 bits",
            )
        return dtype


def _type_error(name: str, expected: list[torch.dtype], x: Tensor) -> InputError:
    return InputError(
        name,
        "have the wrong type",
        expected=", ".join(map(str, expected)),
        found=x.dtype,
        remedy="convert them first",
    )
