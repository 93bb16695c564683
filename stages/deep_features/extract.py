"""Ask one black box for the features of all sets, and measure its retrieval (Sec. III-A).

Reads prepare and one model's folder of train_reid. Writes for every seed
<set>_<split>-s<seed>.npz: features float32 (n, D), the BNNeck's output in the order of prepare's
images; and reid_<set>-s<seed>.npz: average precision, inverse negative penalty and rank-1 of every
valid query of the test split.
"""

import time
from pathlib import Path
from typing import Any

import torch

from stages.common.files import read_json, read_npz, write_npz
from stages.common.params import NonNegativeInt, PositiveInt
from stages.common.stage import run
from stages.common.training import for_each_seed
from stages.deep_features.blackbox import load_blackbox
from stages.deep_features.reid_metrics import retrieve

SPLITS = ("train", "test")


def extract_one(
    data: Path, trained: Path, out: Path, *, seed: int, position: int, threads: int, batch_size: int
) -> dict:
    """Extract with one seed's black box; returns its mean measures by set and the speed."""
    torch.set_num_threads(threads)
    black_box = load_blackbox(trained, seed)
    meta = read_json(data / "meta.json")
    begun, count, measures = time.monotonic(), 0, {}
    for name in [meta["proprietary"], *meta["locals"]]:
        for split in SPLITS:
            file = data / f"{name}_{split}.npz"
            content: dict[str, Any] = read_npz(file, ("images", "pids", "camids", "query"))
            images = torch.from_numpy(content.pop("images"))
            features = black_box(images, batch_size).cpu().numpy()
            del images  # the ranking needs the memory
            write_npz(out / f"{name}_{split}-s{seed}.npz", features=features)
            count += len(features)
            if split == "test":
                ranking = retrieve(features, **content)
                write_npz(out / f"reid_{name}-s{seed}.npz", **ranking._asdict())
                measures[name] = ranking.means()
    return {"measures": measures, "images_per_s": count / (time.monotonic() - begun)}


def extract(
    data: Path,
    trained: Path,
    out: Path,
    *,
    seeds: list[NonNegativeInt],
    threads: PositiveInt,
    batch_size: PositiveInt,
):
    """Write the features of the proprietary and of every local set, both splits, every seed.

    Raises
    ------
    InputError
        If a file is missing or damaged, or a test split has no valid query.
    """
    done = for_each_seed(
        extract_one,
        seeds,
        threads=threads,
        data=data,
        trained=trained,
        out=out,
        batch_size=batch_size,
    )
    return {
        "images_per_s_of_each_seed": [d["images_per_s"] for d in done],
        "reid_of_each_seed": [d["measures"] for d in done],
    }


if __name__ == "__main__":
    run(extract, "deep_features.extract")
