"""Images a second through SIFT and placement, one core against all; sparse against dense storage.

``python tests/benchmarks/sift.py`` writes reports/bench/sift.json. The two ways alternate; quote
the median of the ratios: single times are noise on a shared machine. All cores: with the start of
the processes, which import this file, too, and so torch is imported late. Dense: the float32 maps
of both cell sides as .npy; its seconds are those of writing, and of reading back into tensors, from
a warm file system. The faces of synthfaces256 if they are mounted, else images it draws: disks
before a ground, all of a 1/f spectrum.
"""

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from stages.common.errors import InputError
from stages.common.files import write_json
from stages.data.images import load_images
from stages.data.pool import processes
from stages.sift_inversion.extract import arrange, find
from stages.sift_inversion.keypoints import read, write
from stages.sift_inversion.placement import place, place_many

N, SIZE, PAIRS, BATCH = 1000, 256, 3, 16
PARAMS = {
    "contrast_threshold": 0.04, "edge_threshold": 10, "sigma": 1.6, "octave_layers": 3,
    "order": "response", "collision": "adjacent", "r_max": 1,
}  # fmt: skip


def texture(rng):
    """A colour texture whose amplitude falls with the frequency, as in photographs; 0 to 1."""
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    noise = np.fft.rfft2(rng.normal(size=(3, SIZE, SIZE))) / np.maximum(f, 1 / SIZE)
    plane = np.fft.irfft2(noise, (SIZE, SIZE))
    plane = 0.8 * plane[:1] + 0.2 * plane  # most of it in all channels
    return np.clip(0.5 + 0.15 * plane / plane.std(), 0, 1).transpose(1, 2, 0)


def drawn(n):
    rng, images = np.random.default_rng(0), np.empty((n, SIZE, SIZE, 3), np.uint8)
    y, x = np.mgrid[:SIZE, :SIZE]
    for image in images:
        scene = texture(rng)
        for cx, cy, radius in rng.uniform([0, 0, 5], [SIZE, SIZE, 60], (8, 3)):
            inside = np.hypot(x - cx, y - cy) < radius
            scene[inside] = 0.5 * texture(rng)[inside] + 0.5 * rng.random(3)
        image[:] = cv2.GaussianBlur(np.rint(255 * scene).astype(np.uint8), (0, 0), 0.8)
    return images


def images_and_name():
    try:
        return np.array(load_images("synthfaces256", "main", SIZE).images[:N]), "synthfaces256"
    except InputError:
        return drawn(N), "drawn"


def seconds(function, *arguments, **settings):
    start = time.perf_counter()
    result = function(*arguments, **settings)
    return time.perf_counter() - start, result


def extracted(images, workers):
    return arrange(find(images, PARAMS, "SIFT", workers=workers), SIZE, PARAMS)


def placed_one_by_one(d4):
    for start, stop in zip(d4.offsets, d4.offsets[1:], strict=False):
        place(d4.kp[start:stop], d4.desc[start:stop], size=SIZE, d=4)


def write_dense(folder, maps):
    for d, F in maps.items():
        np.save(folder / f"{d}.npy", F.numpy())


def size_on_disk(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def storage(descriptors):
    """Write and read a batch in both ways."""
    import torch

    from stages.sift_inversion.sparse import densify

    torch.set_num_threads(1)

    def read_dense(folder):
        return {d: torch.from_numpy(np.load(folder / f"{d}.npy")) for d in (4, 2)}

    batch = descriptors.take(range(BATCH))
    maps = {d: F.contiguous() for d, F in densify(batch, range(BATCH)).items()}
    times = []
    with tempfile.TemporaryDirectory() as name:
        ours, plain = Path(name, "sparse"), Path(name, "dense")
        plain.mkdir()
        for _ in range(PAIRS):
            write_ours, _ = seconds(write, ours, batch)
            write_plain, _ = seconds(write_dense, plain, maps)
            read_ours, again = seconds(lambda: densify(read(ours), range(BATCH)))
            read_plain, dense = seconds(read_dense, plain)
            assert all(torch.equal(again[d], dense[d]) for d in maps)
            times.append((write_ours, write_plain, read_ours, read_plain))
        bytes_ours, bytes_plain = size_on_disk(ours), size_on_disk(plain)
    write_ours, write_plain, read_ours, read_plain = map(list, zip(*times, strict=True))
    return {
        "images": BATCH,
        "sparse_bytes_per_image": bytes_ours / BATCH,
        "dense_bytes_per_image": bytes_plain / BATCH,
        "bytes_ratio": bytes_plain / bytes_ours,
        **compare("write", write_ours, write_plain, "sparse", "dense"),
        **compare("read", read_ours, read_plain, "sparse", "dense"),
    }


def compare(what, ours, plain, our_name, plain_name):
    ratios = [b / a for a, b in zip(ours, plain, strict=True)]
    return {
        f"{what}_{our_name}_s": statistics.median(ours),
        f"{what}_{plain_name}_s": statistics.median(plain),
        f"{what}_speedup_median": statistics.median(ratios),
        f"{what}_speedup_range": [min(ratios), max(ratios)],
    }


def main():
    cv2.setNumThreads(1)
    images, name = images_and_name()
    cores, load = processes(), os.getloadavg()[0]
    one, every, together, alone = [], [], [], []
    for _ in range(PAIRS):
        time_one, descriptors = seconds(extracted, images, 1)
        time_all, again = seconds(extracted, images, cores)
        assert np.array_equal(descriptors.cells, again.cells)
        one.append(time_one)
        every.append(time_all)
        placing = descriptors.kp, descriptors.desc, descriptors.offsets, descriptors.ids
        together.append(seconds(place_many, *placing, size=SIZE, d=4)[0])
        alone.append(seconds(placed_one_by_one, descriptors)[0])
    results = {
        "extraction": {
            **compare("extract", every, one, "all_cores", "one_core"),
            "one_core_images_per_s": N / statistics.median(one),
            "all_cores_images_per_s": N / statistics.median(every),
            "keypoints_per_image": len(descriptors.kp) / N,
        },
        "placement": compare("place", together, alone, "batched", "sequential"),
        "storage": storage(descriptors),
    }
    for key, value in results.items():
        print(key, value, flush=True)
    write_json(
        Path("reports/bench/sift.json"),
        {
            "what": f"SIFT and placement of {N} images of {SIZE} px ({name}), {PAIRS} pairs",
            "machine": platform.machine(),
            "cores": cores,
            "load_before": load,  # of other programs: with it, the ratio of cores says little
            "opencv": cv2.__version__,
            "numpy": np.__version__,
            **results,
        },
    )


if __name__ == "__main__":
    main()
