import pytest
import torch

from stages.deep_features.augmentation import augment, auto_augment, erased, shift_flip
from stages.deep_features.networks import IMAGENET_MEAN
from stages.deep_features.pixels import resize, resize_bytes, to_floats

NOTHING = {"flip": 0, "padding": 0, "erasing": 0, "autoaugment": 0}
ALL = {"flip": 0.5, "padding": 2, "erasing": 0.5, "autoaugment": 0.5}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=8, h=16, w=8):
    return torch.randint(0, 256, (n, h, w, 3), generator=generator(9), dtype=torch.uint8)


def test_without_changes_images_are_only_scaled():
    x = images()
    shown = augment(x, seed=0, step=0, **NOTHING)
    assert torch.equal((shown * 255).round().permute(0, 2, 3, 1).byte(), x)


def test_augmentation_is_a_function_of_seed_and_step():
    x = images()
    torch.manual_seed(1)
    a = augment(x, seed=3, step=5, **ALL)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(a, augment(x, seed=3, step=5, **ALL))
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is left alone"
    assert not torch.equal(a, augment(x, seed=3, step=6, **ALL))
    assert not torch.equal(a, augment(x, seed=4, step=5, **ALL))


def test_a_flip_mirrors_and_a_shift_is_pad_and_crop():
    x = images()
    assert torch.equal(shift_flip(x, generator(), padding=0, flip=1), x.flip(2))
    seen = set()
    for seed in range(20):
        moved = shift_flip(x, generator(seed), padding=2, flip=0)
        for before, after in zip(x, moved, strict=True):
            padded = torch.zeros((20, 12, 3), dtype=torch.uint8)
            padded[2:18, 2:10] = before
            crops = [
                (a, b)
                for a in range(5)
                for b in range(5)
                if torch.equal(padded[a : a + 16, b : b + 8], after)
            ]
            assert crops, "every shifted image is a crop of the padded one"
            seen.update(crops)
    assert len(seen) == 25, "every crop occurs"


def test_erasing_takes_one_rectangle_of_the_stated_share():
    masks = erased(600, (32, 16), generator(), p=0.5)
    assert 0.4 < masks.any((1, 2)).float().mean() < 0.6
    shares, wide = [], 0
    for mask in masks[masks.any((1, 2))]:
        rows, columns = torch.nonzero(mask.any(1)).flatten(), torch.nonzero(mask.any(0)).flatten()
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all() and box.sum() == mask.sum()
        assert box.shape[0] < 32 and box.shape[1] < 16
        shares.append(float(mask.float().mean()))
        wide += box.shape[1] > box.shape[0]
    assert 0.01 < min(shares) < 0.04 and 0.28 < max(shares) < 0.35
    assert 0.1 < wide / len(shares) < 0.9
    assert not erased(50, (32, 16), generator(), p=0).any()


def test_what_is_erased_is_imagenets_mean():
    shown = augment(images(), seed=0, step=0, **{**NOTHING, "erasing": 1})
    plain = to_floats(images())
    gone = (shown != plain).any(1)
    assert gone.any((1, 2)).all()
    mean = torch.tensor(IMAGENET_MEAN)
    assert torch.equal(shown.permute(0, 2, 3, 1)[gone], mean.expand(int(gone.sum()), 3))


def test_autoaugment_changes_about_its_share_of_images_and_not_the_input():
    x = images(n=100)
    copy = x.clone()
    changed = auto_augment(x, generator(), p=0.3)
    assert torch.equal(x, copy)
    assert 15 < (changed != x).flatten(1).any(1).sum() < 45
    assert auto_augment(x, generator(), p=0) is x


def test_resizing_is_pils_bicubic_within_two_levels():
    pil = pytest.importorskip("PIL.Image")
    smooth = torch.nn.functional.interpolate(
        torch.rand((2, 3, 4, 4), generator=generator()), (64, 32), mode="bilinear"
    )
    x = (255 * smooth).byte().permute(0, 2, 3, 1).contiguous()
    for size in ((96, 32), (24, 12)):
        ours = resize_bytes(x, size)
        for image, done in zip(x, ours, strict=True):
            theirs = pil.fromarray(image.numpy()).resize(size[::-1], pil.Resampling.BICUBIC)
            theirs = torch.tensor(list(theirs.tobytes())).reshape(*size, 3)
            assert (theirs - done.int()).abs().max() <= 2


def test_resizing_to_the_same_size_changes_nothing_and_the_range_is_kept():
    x = images()
    assert resize_bytes(x, (16, 8)) is x
    sharp = torch.zeros(1, 3, 8, 8)
    sharp[..., 4:] = 1
    larger = resize(sharp, (16, 16))
    assert larger.min() == 0 and larger.max() == 1
