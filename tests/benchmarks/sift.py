"""SIFT, placement and storage of descriptors: all cores against one, batches against loops.

One process finds the keypoints of one image after the other; placement loops over images and
keypoints; dense storage is the float32 maps of both cell sides as .npy, on a warm file system. All
cores: with the start of the processes. The images are drawn: disks before a ground, all of a 1/f
spectrum.
"""

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from timing import Settings, Way, compare, cores

from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.keypoints import read, write
from stages.sift_inversion.placement import place, place_many

N, SIZE, BATCH = 300, 256, 16
PARAMS = {
    "contrast_threshold": 0.04, "edge_threshold": 10, "sigma": 1.6, "octave_layers": 3,
    "order": "response", "collision": "adjacent", "r_max": 1,
}  # fmt: skip


def texture(rng, size):
    """A colour texture whose amplitude falls with the frequency, as in photographs; 0 to 1."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    noise = np.fft.rfft2(rng.normal(size=(3, size, size))) / np.maximum(f, 1 / size)
    plane = np.fft.irfft2(noise, (size, size))
    plane = 0.8 * plane[:1] + 0.2 * plane  # most of it in all channels
    return np.clip(0.5 + 0.15 * plane / plane.std(), 0, 1).transpose(1, 2, 0)


def drawn(n, size):
    """Return n images of disks before a ground, as good as photographs for SIFT."""
    rng, images = np.random.default_rng(0), np.empty((n, size, size, 3), np.uint8)
    y, x = np.mgrid[:size, :size]
    for image in images:
        scene = texture(rng, size)
        for cx, cy, radius in rng.uniform([0, 0, size / 50], [size, size, size / 4], (8, 3)):
            inside = np.hypot(x - cx, y - cy) < radius
            scene[inside] = 0.5 * texture(rng, size)[inside] + 0.5 * rng.random(3)
        image[:] = cv2.GaussianBlur(np.rint(255 * scene).astype(np.uint8), (0, 0), 0.8)
    return images


def one_after_the_other(images, params):
    """Find and place as a first version does: image by image, keypoint by keypoint."""
    found = arrange(find(images, params, "SIFT", workers=1), images.shape[1], params)
    placed_one_by_one(found)
    return found


def placed_one_by_one(descriptors):
    for start, stop in zip(descriptors.offsets, descriptors.offsets[1:], strict=False):
        for d in (4, 2):
            kp, desc = descriptors.kp[start:stop], descriptors.desc[start:stop]
            place(kp, desc, size=descriptors.size, d=d)


def placed_together(descriptors):
    of = descriptors.kp, descriptors.desc, descriptors.offsets, descriptors.ids
    for d in (4, 2):
        place_many(*of, size=descriptors.size, d=d)


def sift(settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Measure extraction, placement and storage."""
    cv2.setNumThreads(1)
    n = settings.sized(N, 4)
    images = drawn(n, SIZE)
    workers = cores()
    descriptors = arrange(find(images, PARAMS, "SIFT", workers=1), SIZE, PARAMS)
    again = arrange(find(images, PARAMS, "SIFT", workers=workers), SIZE, PARAMS)
    assert np.array_equal(descriptors.cells, again.cells)
    keypoints = len(descriptors.kp) / n
    how = {"images": n, "peak": peak}
    found = {
        "sift_extraction": compare(
            {
                "ours": Way(
                    lambda: lambda: find(images, PARAMS, "SIFT", workers=workers),
                    f"{workers} processes",
                    apart=True,
                ),
                "one": Way(lambda: lambda: find(images, PARAMS, "SIFT", workers=1), "one process"),
            },
            settings,
            what=f"paper B: SIFT of {n} images of {SIZE} px, {keypoints:.0f} keypoints each",
            against=("one",),
            **how,
        ),
        "sift_placement": compare(
            {
                "ours": Way(lambda: partial(placed_together, descriptors), "all images at once"),
                "loop": Way(lambda: partial(placed_one_by_one, descriptors), "double loop"),
            },
            settings,
            what=f"paper B: cells of both sides for the keypoints of {n} images",
            against=("loop",),
            **how,
        ),
        "sift_extraction_and_placement": compare(
            {
                "ours": Way(
                    lambda: (
                        lambda: arrange(find(images, PARAMS, "SIFT", workers=workers), SIZE, PARAMS)
                    ),
                    f"{workers} processes, placement of all at once",
                    apart=True,
                ),
                "loop": Way(
                    lambda: lambda: one_after_the_other(images, PARAMS),
                    "one process; with the stage's own placement, a tenth, beside the loop",
                ),
            },
            settings,
            what=f"paper B: SIFT and placement of {n} images of {SIZE} px",
            against=("loop",),
            **how,
        ),
    }
    return found | storage(descriptors, settings, peak)


def storage(descriptors, settings: Settings, peak: Mapping) -> dict[str, dict]:
    """Write and read a batch, sparse and dense."""
    import torch

    from stages.sift_inversion.sparse import densify

    torch.set_num_threads(1)
    m = min(BATCH, len(descriptors))
    batch = descriptors.take(range(m))
    maps = {d: F.contiguous() for d, F in densify(batch, range(m)).items()}

    def write_dense(folder):
        for d, F in maps.items():
            np.save(folder / f"{d}.npy", F.numpy())

    def read_dense(folder):
        return {d: torch.from_numpy(np.load(folder / f"{d}.npy")) for d in (4, 2)}

    with tempfile.TemporaryDirectory() as name:
        sparse, dense = Path(name, "sparse"), Path(name, "dense")
        dense.mkdir()
        write(sparse, batch)
        write_dense(dense)
        again = densify(read(sparse), range(m))
        assert all(torch.equal(again[d], part) for d, part in read_dense(dense).items())
        sizes = {
            folder.name: sum(f.stat().st_size for f in folder.iterdir()) / m
            for folder in (sparse, dense)
        }
        how = {"against": ("dense",), "images": m, "bytes_per_image": sizes}
        text = f"{m} images of {descriptors.size} px"
        return {
            "sift_write": compare(
                {
                    "ours": Way(lambda: lambda: write(sparse, batch), "keypoints"),
                    "dense": Way(lambda: lambda: write_dense(dense), "float32 maps"),
                },
                settings,
                what=f"paper B: write the descriptors of {text}",
                **how,
            ),
            "sift_read": compare(
                {
                    "ours": Way(lambda: lambda: densify(read(sparse), range(m)), "keypoints"),
                    "dense": Way(lambda: lambda: read_dense(dense), "float32 maps"),
                },
                settings,
                what=f"paper B: read them back as maps, {text}",
                **how,
            ),
        }


ITEMS = {"sift": sift}
