"""What an SSIM is worth: images that have seen nothing, measured against the plain ones (Sec. 5).

Low SSIM means that a reconstruction failed; only beside these does it say how much it reveals.
"""

import numpy as np
from jaxtyping import UInt8

Images = UInt8[np.ndarray, "n h w 3"]


def floor_images(plain: Images, seed: int) -> dict[str, Images]:
    """Return for each floor its image instead of each plain image.

    ``blank``: one constant colour, the mean of the set; ``mean_colour``: the image's own mean;
    ``other_image``: the image half the set away, since neighbours may be of one class;
    ``noise``: uniform bytes.
    """
    shape = plain.shape
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    mean = np.rint(plain.mean((1, 2), keepdims=True)).astype(np.uint8)
    blank = np.rint(plain.mean((0, 1, 2))).astype(np.uint8)
    return {
        "blank": np.broadcast_to(blank, shape),
        "mean_colour": np.broadcast_to(mean, shape),
        "other_image": np.roll(plain, len(plain) // 2, axis=0),
        "noise": noise,
    }
