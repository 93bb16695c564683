"""The dense maps F_d of a batch, made from sparse keypoints (Sec. III-A).

A keypoint takes 156 bytes; the dense maps of an image of 256 px take 10 MB in 32 bits. So the maps
exist only on the device and only for a batch. What lies on disk is read by ``keypoints``, whose
names this module has, too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from stages.common.errors import InputError
from stages.sift_inversion.keypoints import DROPPED, SCALES, Descriptors, offsets_of, read, write
from stages.sift_inversion.placement import draw, own_cells

__all__ = ["DROPPED", "SCALES", "Descriptors", "densify", "offsets_of", "read", "write"]


def _fits(name: str, value: object, known: Sequence) -> None:
    if value not in known:
        raise InputError(
            name,
            "is no way to write the maps of keypoints",
            expected=f"one of {', '.join(map(str, known))}",
            found=value,
            remedy="correct it in params.yaml",
        )


def densify(
    descriptors: Descriptors,
    index: Sequence[int] | Int[np.ndarray, " b"] | Int[Tensor, " b"],
    *,
    scales: Sequence[int] = SCALES,
    channels: int = 128,
    desc_norm: str = "unit",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[int, Float[Tensor, "b channels h_d h_d"]]:
    """Return the maps F_d of the images ``index``: {d: (b, channels, ceil(S/d), ceil(S/d))}.

    An empty cell is 0. The maps are channels-last in memory; each is one ``index_put_`` on
    ``device``. The map of an image does not depend on the batch it is in.

    Parameters
    ----------
    index : positions 0..n-1 of the images.
    scales : of 4 and 2; one that is asked for twice comes once.
    channels : 128: the descriptor, where ``extract`` placed it. 133: the input of Dosovitskiy &
        Brox 2016: descriptor, x mod d, y mod d (px), sine and cosine of the angle, log sigma; of
        several keypoints in a cell one at random (by :func:`draw`), the others are dropped.
    desc_norm : "unit": D / 512, about of length 1; "pm1": D / 127.5 - 1.

    Raises
    ------
    InputError
        If ``scales``, ``channels`` or ``desc_norm`` is none of these.
    """
    for d in scales:
        _fits("inputs", d, SCALES)
    _fits("channels", channels, (128, 133))
    _fits("desc_norm", desc_norm, ("unit", "pm1"))
    index = np.asarray(index, np.int64)
    rows, slot = descriptors.rows(index)
    desc = torch.from_numpy(descriptors.desc[rows]).to(device).float()
    features = desc / 512 if desc_norm == "unit" else desc / 127.5 - 1
    maps = {}
    for d in dict.fromkeys(scales):
        if channels == 128:
            column = 2 * SCALES.index(d)
            cells = descriptors.cells[rows, column : column + 2].astype(np.int64)
            chosen, values = np.flatnonzero(cells[:, 0] != DROPPED), features
        else:
            kp = descriptors.kp[rows]
            cells = own_cells(kp, size=descriptors.size, d=d)
            chosen = _one_in_a_cell(cells, slot, draw(kp, descriptors.ids[index][slot]))
            more = torch.from_numpy(geometry(kp, cells, d)).to(device)
            values = torch.cat([features, more], 1)
        where = np.stack([slot, *cells.T])[:, chosen]
        side = -(-descriptors.size // d)
        F = torch.zeros((len(index), side, side, channels), dtype=dtype, device=device)
        on_device = torch.from_numpy(where).to(device)
        F.index_put_(tuple(on_device), values[torch.from_numpy(chosen).to(device)].to(dtype))
        maps[d] = F.permute(0, 3, 1, 2)
    return maps


def _one_in_a_cell(
    cells: Int64[np.ndarray, "k 2"], slot: Int64[np.ndarray, " k"], chance: np.ndarray
) -> Int64[np.ndarray, " chosen"]:
    """Return the keypoint of the smallest draw in each cell of each image."""
    order = np.lexsort((chance, cells[:, 1], cells[:, 0], slot))
    where = np.column_stack([slot, cells])[order]
    first = np.ones(len(order), bool)
    first[1:] = (where[1:] != where[:-1]).any(1)
    return order[first]


def geometry(
    kp: Float32[np.ndarray, "k 5"], cells: Int64[np.ndarray, "k 2"], d: int
) -> Float32[np.ndarray, "k 5"]:
    """Return x mod d, y mod d (px), sine and cosine of the angle, log sigma of each keypoint."""
    x, y, size, angle, _ = kp.T
    theta = np.deg2rad(angle)
    return np.stack(
        [x - d * cells[:, 1], y - d * cells[:, 0], np.sin(theta), np.cos(theta), np.log(size / 2)],
        1,
    ).astype(np.float32)
