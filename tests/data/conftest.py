from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.data import fingerprint
from stages.data.register import register


def picture(seed: int, side: int = 24) -> Image.Image:
    pixels = np.random.RandomState(seed).randint(0, 256, (side, side, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A set "tiny": two splits of two classes of two JPEGs, not registered yet."""
    root = tmp_path / "mounted"
    for i, part in enumerate(f"{s}/{c}" for s in ("train", "test") for c in ("cat", "dog")):
        (root / part).mkdir(parents=True)
        for j in range(2):
            picture(2 * i + j).save(root / part / f"{j}.jpg", quality=90)
    prints = tmp_path / "fingerprints"
    prints.mkdir()
    monkeypatch.setattr(fingerprint, "FINGERPRINTS", prints)
    monkeypatch.setenv("TINY_ROOT", str(root))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # the cache goes there
    return root


@pytest.fixture
def tiny(folder) -> Path:
    """The same, registered."""
    register("tiny", folder)
    return folder
