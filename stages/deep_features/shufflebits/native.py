"""The fastest ShuffleBits on a CPU: ``native.c``, compiled where it runs.

Optional: it needs a C compiler (``cc``, ``gcc`` or ``clang``, or what the variable CC names), which
is called once a process, with a temporary folder for its result. ``arrays`` needs none.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt32

from stages.common.errors import InputError
from stages.deep_features.shufflebits.arrays import check_words
from stages.deep_features.shufflebits.keys import BitKey

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-march=native", "-shared", "-fPIC")
WIDTH = 32


def compiler() -> str | None:
    """Return the C compiler's path, None if there is none."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def permute(
    words: UInt32[np.ndarray, "*shape"],
    key: BitKey,
    *,
    inverse: bool = False,
    out: UInt32[np.ndarray, "*shape"] | None = None,
) -> UInt32[np.ndarray, "*shape"]:
    """Do what ``arrays.permute`` does with words of 32 bits.

    Parameters
    ----------
    out : where the result goes, in C order and apart from ``words``; None: a new array.

    Raises
    ------
    InputError
        If the key has another width, ``out`` overlaps or is not in C order, or there is no compiler
        or it fails.
    """
    check_words(WIDTH, key)
    plain = np.ascontiguousarray(words).reshape(words.shape)
    result = np.empty(words.shape, np.uint32) if out is None else out
    if not result.flags.c_contiguous or np.shares_memory(result, plain):
        raise InputError(
            "the array for the result",
            "cannot be written to",
            expected="one in C order, apart from the words",
            found="another",
            remedy="give np.empty(words.shape, np.uint32)",
        )
    perm = (key.inverse() if inverse else key).perm
    _kernel()(plain.ctypes.data, result.ctypes.data, plain.size, perm.tobytes())
    return result


@cache
def _kernel() -> Callable:
    path = compiler()
    if path is None:
        raise InputError(
            SOURCE.name,
            "cannot be compiled",
            expected="a C compiler: cc, gcc or clang",
            found="none",
            remedy="install one, or use arrays.encrypt_numpy",
        )
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "shufflebits.so")
        command = [path, *FLAGS, str(SOURCE), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                SOURCE.name,
                "cannot be compiled",
                expected=f"success of {Path(path).name} {' '.join(FLAGS)}",
                found=(done.stderr.strip().splitlines() or [f"status {done.returncode}"])[0],
                remedy="set CC to another compiler, or use arrays.encrypt_numpy",
            )
        function = ctypes.CDLL(str(library)).shufflebits
    pointer = ctypes.c_void_p
    function.argtypes = [pointer, pointer, ctypes.c_size_t, ctypes.c_char_p]
    function.restype = None
    return function
