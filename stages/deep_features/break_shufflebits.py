"""Attack one ShuffleBits request of your own: python -m stages.deep_features.break_shufflebits.

``--reference`` holds plain features of the same network, a row an image; ``--ciphertext`` one or
more vectors encrypted under one key, as integers. Prints what the recovered features are like and
how sure the attack is; no key and no plain feature of the request is needed or asked for.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt32

from stages.common.errors import InputError, cause
from stages.common.files import write_bytes
from stages.common.stage import one_sentence
from stages.deep_features.cryptanalysis.calibration import fit_by_trial
from stages.deep_features.cryptanalysis.reference import check_reference
from stages.deep_features.cryptanalysis.search import Recovery, attack, check_request, decode

SURE, DOUBTFUL = 0.99, 0.5  # of the confidence
WORDS = (np.dtype(np.uint32), np.dtype(np.int32))


def main(argv: list[str] | None = None) -> None:
    """Run the attack; exits with status 2 and one sentence on bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.deep_features.break_shufflebits",
        description="Recover the features of one ShuffleBits request from its ciphertext alone.",
    )
    parser.add_argument(
        "--reference", type=Path, required=True, metavar="REF.npy",
        help="plain features of the same network, float32 (n, D), 20 rows or more",
    )  # fmt: skip
    parser.add_argument(
        "--ciphertext", type=Path, required=True, metavar="REQ.npy",
        help="the request, int32 or uint32 (D,) or (m, D), one key for all rows",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="RECOVERED.npy", help="write the features here")
    args = parser.parse_args(argv)
    with one_sentence("break_shufflebits"):
        features = read_reference(args.reference)
        cipher = read_ciphertext(args.ciphertext)
        reference = fit_by_trial(features)
        check_request(reference, cipher, str(args.ciphertext))
        found = attack(reference, cipher)
        recovered = decode(reference, cipher, found.perm)
        if args.out is not None:
            write_array(args.out, recovered)
    print(describe(features, recovered, found))
    if args.out is not None:
        print(f"wrote {args.out}")


def read_array(path: Path) -> np.ndarray:
    """Read an .npy file without unpickling anything.

    Raises
    ------
    InputError
        If it is missing or damaged, or is another kind of file.
    """
    try:
        array = np.load(path, allow_pickle=False)
        if isinstance(array, np.ndarray):
            return array
        array.close()
        found = "an .npz"
    except OSError as error:
        found = error.strerror or error
    except Exception as error:  # NumPy raises many kinds on damaged files
        found = cause(error)
    raise InputError(
        path, "cannot be read", expected="one array of numbers in an .npy file", found=found,
        remedy="write it by numpy.save",
    )  # fmt: skip


def read_reference(path: Path) -> Float32[np.ndarray, "n d"]:
    """Read the adversary's own plain features.

    Raises
    ------
    InputError
        If they are not float32 (n, D), two rows or more, all finite.
    """
    array = read_array(path)
    if array.dtype != np.float32 or array.ndim != 2:
        raise InputError(
            path, "holds no reference features", expected="float32 of shape (n, D)",
            found=f"{array.dtype} of shape {array.shape}",
            remedy="save the plain features as the network emits them, a row an image",
        )  # fmt: skip
    check_reference(array, str(path))
    return array


def read_ciphertext(path: Path) -> UInt32[np.ndarray, "m d"]:
    """Read an encrypted request.

    Raises
    ------
    InputError
        If it is not int32 or uint32, (D,) or (m, D).
    """
    array = read_array(path)
    if array.dtype.kind == "f":
        raise InputError(
            path, "holds floats", expected="the ciphertext's words as int32 or uint32",
            found=array.dtype, remedy="save words.view(numpy.uint32): as floats, NaNs lose bits",
        )  # fmt: skip
    if array.dtype not in WORDS or array.ndim not in (1, 2) or array.size == 0:
        raise InputError(
            path, "holds no request", expected="int32 or uint32 of shape (D,) or (m, D)",
            found=f"{array.dtype} of shape {array.shape}",
            remedy="save the words of all vectors that one key encrypted",
        )  # fmt: skip
    return np.ascontiguousarray(np.atleast_2d(array)).view(np.uint32)


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an .npy file, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_bytes(path, content.getvalue())


def describe(
    features: Float32[np.ndarray, "n d"], recovered: Float32[np.ndarray, "m d"], found: Recovery
) -> str:
    """Say what the recovered features are like beside the reference, and how sure that is."""
    rows = [
        ("mean", lambda x: x.mean()),
        ("standard deviation", lambda x: x.std()),
        ("least", lambda x: x.min()),
        ("median", np.median),
        ("largest", lambda x: x.max()),
        ("share below 0", lambda x: (x < 0).mean()),
    ]
    verdict = "not broken: nothing to rely on"
    if found.confidence >= SURE:
        verdict = "broken"
    elif found.confidence >= DOUBTFUL:
        verdict = "probably broken"
    m, d = recovered.shape
    lines = [f"{m} vector{'s' * (m > 1)} of {d} dimensions, {len(features)} reference vectors"]
    lines.append(f"{'':<20}{'reference':>12}{'recovered':>12}")
    lines += [
        f"{name:<20}{float(of(features.astype(float))):>12.4g}"
        f"{float(of(recovered.astype(float))):>12.4g}"
        for name, of in rows
    ]
    lines.append(f"log-likelihood of the leading 12 bits: {found.likelihood:.2f} nats a float")
    lines.append(f"as likely as the reference (1) or a random key (0): {found.fit:.3f}")
    lines.append(f"probability of the sign's place: {found.sign:.3f}")
    lines.append(f"confidence: {found.confidence:.3f} ({verdict})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
