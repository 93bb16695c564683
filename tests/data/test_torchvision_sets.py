import pickle
from hashlib import md5

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from stages.common.errors import InputError
from stages.data.images import load_images
from stages.data.subset import per_class_subset


@pytest.fixture(autouse=True)
def _cache_here(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Four made-up images in CIFAR-10's files, with torchvision's list of checksums adjusted."""
    folder = tmp_path / "root" / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (4, 3072)).astype(np.uint8)
    sums = {}
    contents = {
        "test_batch": {"data": pixels, "labels": [3, 1, 0, 2]},
        "batches.meta": {"label_names": ["a", "b", "c", "d"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = datasets.CIFAR10.meta | {"md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    monkeypatch.setenv("CIFAR10_ROOT", str(folder.parent))
    return folder, pixels


def test_cifar10_is_read_by_torchvision(cifar10):
    got = load_images("cifar10", "test", 32)
    np.testing.assert_array_equal(
        got.images, cifar10[1].reshape(4, 3, 32, 32).transpose(0, 2, 3, 1)
    )
    assert got.labels.tolist() == [3, 1, 0, 2] and got.classes == ["a", "b", "c", "d"]
    assert load_images("cifar10", "test", 16).images.shape == (4, 16, 16, 3)


def test_cifar10_with_a_wrong_checksum(cifar10):
    path = cifar10[0] / "test_batch"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"does not hold cifar10.*docs/data\.md"):
        load_images("cifar10", "test", 32)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "celeba", "imagenet"])
def test_nothing_is_downloaded_unasked(name, tmp_path, monkeypatch):
    monkeypatch.setenv(f"{name.upper()}_ROOT", str(tmp_path))

    def fetched(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", fetched)
    split = {"imagenet": "val"}.get(name, "test")
    with pytest.raises(InputError, match=f"does not hold {name}"):
        load_images(name, split, 32)


def test_flag_lets_torchvision_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path / "new"))
    asked = []
    monkeypatch.setattr(datasets.CIFAR10, "download", lambda self: asked.append(self.root))
    with pytest.raises(InputError, match="does not hold cifar10"):
        load_images("cifar10", "test", 32, download=True)
    assert asked == [tmp_path / "new"]


def test_imagenet_is_never_fetched():
    with pytest.raises(InputError, match="cannot be downloaded"):
        load_images("imagenet", "val", 32, download=True)


def test_missing_folder_of_a_torchvision_set(tmp_path, monkeypatch):
    monkeypatch.delenv("STL10_ROOT", raising=False)
    with pytest.raises(InputError, match="STL10_ROOT is not set"):
        load_images("stl10", "test", 96)


class MadeUpImageNet:
    classes = [("tench", "Tinca tinca"), ("goldfish",)]

    def __init__(self, root, split):
        self.samples = [(str(root / "x.JPEG"), 0), (str(root / "y.JPEG"), 1)]


def test_imagenet_files_are_decoded_with_cmyk_and_grey(tmp_path, monkeypatch):
    Image.new("CMYK", (20, 10), (255, 0, 0, 0)).save(tmp_path / "x.JPEG")
    Image.new("L", (10, 10), 77).save(tmp_path / "y.JPEG")
    monkeypatch.setattr(datasets, "ImageNet", MadeUpImageNet)
    monkeypatch.setenv("IMAGENET_ROOT", str(tmp_path))
    got = load_images("imagenet", "val", 8, crop=True)
    assert got.classes == ["tench, Tinca tinca", "goldfish"] and got.labels.tolist() == [0, 1]
    assert got.grey_converted == 1 and (got.images[1] == 77).all()


def test_missing_file_of_imagenet_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "ImageNet", MadeUpImageNet)
    monkeypatch.setenv("IMAGENET_ROOT", str(tmp_path))
    with pytest.raises(InputError, match=r"x\.JPEG: is missing from imagenet"):
        load_images("imagenet", "val", 8)


def test_celeba_gives_identities_as_groups(tmp_path, monkeypatch):
    import torch

    class MadeUpCelebA:
        base_folder = "celeba"

        def __init__(self, root, split, target_type, download):
            self.root, self.filename = str(root), ["1.jpg", "2.jpg"]
            self.identity = torch.tensor([[7], [7]])

    folder = tmp_path / "celeba/img_align_celeba"
    folder.mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        Image.new("RGB", (178, 218)).save(folder / name)
    monkeypatch.setattr(datasets, "CelebA", MadeUpCelebA)
    monkeypatch.setenv("CELEBA_ROOT", str(tmp_path))
    got = load_images("celeba", "train", 64, crop=True)
    assert got.groups.tolist() == [7, 7] and got.classes == ["face"] and len(got.images) == 2


class MadeUpLargeImageNet:
    classes = [("tench",), ("goldfish",)]

    def __init__(self, root, split):
        names = [(f"{label}-{i}.JPEG", label) for label in (0, 1) for i in range(6)]
        self.samples = [(str(root / name), label) for name, label in names]


def test_a_few_images_a_class_are_decoded_without_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "ImageNet", MadeUpLargeImageNet)
    monkeypatch.setenv("IMAGENET_ROOT", str(tmp_path))
    chosen = per_class_subset([0] * 6 + [1] * 6, 2)
    for i in chosen:  # the others do not even exist
        label, number = divmod(int(i), 6)
        Image.new("L", (10, 10), 10 * number).save(tmp_path / f"{label}-{number}.JPEG")
    got = load_images("imagenet", "train", 8, per_class=2)
    assert got.labels.tolist() == [0, 0, 1, 1]
    assert got.groups.tolist() == chosen.tolist()
    assert np.abs(got.images[:, 0, 0, 0].astype(int) - 10 * (chosen % 6)).max() <= 2
