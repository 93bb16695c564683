"""t21: SynthPed is deterministic, shows its attributes, and its domains are apart."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from torch import nn
from torch.nn.functional import cross_entropy

from stages.common.errors import InputError
from stages.data.fingerprint import array_hash
from stages.deep_features import synthped as module
from stages.deep_features.synthped import TASKS, class_counts, synthped
from stages.deep_features.synthped_camera import DOMAINS

SMALL = {"ids": 9, "images": 4, "height": 64, "width": 32, "seed": 0}
ARRAYS = ("images", "pids", "camids", "attributes", "query")


def hashes(name="synth_a", split="train", **changes):
    drawn = synthped(name, split, **SMALL | changes)
    return {array: array_hash(array, getattr(drawn, array)) for array in ARRAYS}


def test_the_same_seed_draws_the_same_bytes_and_other_arguments_others():
    first = hashes()
    assert first == hashes()
    for other in ({"seed": 1}, {"split": "test"}, {"name": "synth_b"}):
        assert hashes(**other)["images"] != first["images"]
        assert hashes(**other)["attributes"] != first["attributes"]


def test_processes_do_not_change_a_byte(monkeypatch):
    first = hashes(ids=30, images=8)
    monkeypatch.setattr(module, "WORTH_A_POOL", 1)
    monkeypatch.setattr(module, "processes", lambda: 2)
    assert hashes(ids=30, images=8) == first


def test_shapes_identities_and_numbers():
    drawn = synthped("synth_p", "test", **SMALL | {"first_pid": 40})
    assert drawn.images.shape == (36, 64, 32, 3) and drawn.images.dtype == np.uint8
    assert np.unique(drawn.pids).tolist() == list(range(40, 49))
    assert drawn.attributes.shape == (36, 12)
    assert 1 <= drawn.camids.min() and drawn.camids.max() <= DOMAINS["synth_p"].cameras
    for pid in range(40, 49):  # attributes are of the identity
        assert len(np.unique(drawn.attributes[drawn.pids == pid], axis=0)) == 1


@pytest.mark.parametrize("images", [4, 5, 8, 20])
def test_every_query_has_gallery_images_of_another_camera(images):
    test = synthped("synth_a", "test", **SMALL | {"images": images})
    for i in np.flatnonzero(test.query):
        same = ~test.query & (test.pids == test.pids[i])
        assert (same & (test.camids != test.camids[i])).any()
    pairs = set(zip(test.pids.tolist(), test.camids.tolist(), strict=True))
    assert test.query.sum() == len(pairs)
    assert not synthped("synth_a", "train", **SMALL | {"images": images}).query.any()


def test_classes_follow_the_weights_and_none_has_fewer_than_five_identities():
    weights = np.array([7, 495, 140, 7.0])  # Market-1501's ages
    assert class_counts(weights, 649).tolist() == [7, 495, 140, 7]
    assert class_counts(weights, 100).tolist() == [5, 70, 20, 5]
    assert class_counts(weights, 16).tolist() == [4, 4, 4, 4]
    assert class_counts(np.ones(9), 9).tolist() == [1] * 9
    for n in (9, 16, 47, 100, 150, 700):
        for task in TASKS.values():
            counts = class_counts(np.array(list(task.values()), float), n)
            assert counts.sum() == n and counts.min() >= min(5, n // len(counts))


def test_tasks_have_the_numbers_of_classes_of_markets():
    assert sorted(map(len, TASKS.values())) == [2] * 9 + [4, 8, 9]


def test_cameras_of_two_domains_never_overlap_in_red_over_blue():
    ranges = sorted(domain.red_over_blue for domain in DOMAINS.values())
    assert all(low[1] < high[0] for low, high in zip(ranges, ranges[1:], strict=False))


def test_domains_are_told_apart_by_their_backgrounds():
    def corners(split):
        sets = [synthped(name, split, **SMALL | {"ids": 20}) for name in DOMAINS]
        X = np.concatenate([s.images[:, :, [0, 1, -2, -1]].mean(axis=(1, 2)) for s in sets])
        return X / 255, np.repeat(range(3), [len(s.images) for s in sets])

    model = LogisticRegression(C=100, max_iter=1000).fit(*corners("train"))
    assert model.score(*corners("test")) > 0.95


def test_a_figure_keeps_its_place_at_other_sizes():
    """A larger drawing, averaged down, is the smaller one but for texture and noise."""
    small, large, tall = (
        synthped("synth_p", "train", **SMALL | {"height": h, "width": w}).images.astype(float)
        for h, w in ((64, 32), (128, 64), (192, 64))
    )
    for other in (
        large.reshape(36, 64, 2, 32, 2, 3).mean(axis=(2, 4)),
        tall.reshape(36, 64, 3, 32, 2, 3).mean(axis=(2, 4)),
    ):
        assert np.abs(small - other).mean() < 12
        assert np.abs(small - np.roll(other, 6, axis=2)).mean() > 15


def equal_counts(weights, n):
    counts = np.full(len(weights), n // len(weights))
    counts[: n % len(weights)] += 1
    return counts


def test_a_small_network_reads_the_attributes_from_pixels(monkeypatch):
    """Mean balanced accuracy above .9 for people that it was not trained on."""
    monkeypatch.setattr(module, "class_counts", equal_counts)  # rare classes need examples, too
    monkeypatch.setitem(module.AT_LEAST, "images", 1)  # many people teach more than many images
    size = {"height": 64, "width": 32, "seed": 1}  # the drawing was made by looking at seed 0
    train = synthped("synth_p", "train", ids=4000, images=1, **size)
    test = synthped("synth_p", "test", ids=100, images=4, **size)
    many = [len(classes) for classes in TASKS.values()]

    def block(c_in, c_out):
        conv = nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())

    torch.manual_seed(0)
    net = nn.Sequential(
        *(block(3, 24), block(24, 48), block(48, 64)),
        *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64 * 8 * 4, sum(many))),
    )
    x, unseen = (torch.tensor(s.images).permute(0, 3, 1, 2) / 127.5 - 1 for s in (train, test))
    y = torch.tensor(train.attributes)
    epochs, batch = 7, 50
    opt = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    plan = torch.optim.lr_scheduler.OneCycleLR(opt, 6e-3, epochs * len(x) // batch)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(batch):
            shift = torch.randint(-2, 3, (2,)).tolist()
            seen = x[index].roll(shift, (2, 3))
            logits = net(seen.flip(3) if torch.rand(()) < 0.5 else seen).split(many, 1)
            loss = sum(cross_entropy(z, y[index, t]) for t, z in enumerate(logits))
            opt.zero_grad()
            loss.backward()
            opt.step()
            plan.step()
    net.eval()
    with torch.no_grad():
        found = [z.argmax(1).numpy() for z in net(unseen).split(many, 1)]
    scores = {
        task: balanced_accuracy_score(test.attributes[:, t], found[t])
        for t, task in enumerate(TASKS)
    }
    assert np.mean(list(scores.values())) > 0.9, scores


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": "synt_a"}, "is not a set of SynthPed.*did you mean 'synth_a'"),
        ({"split": "val"}, "is not a split"),
        ({"ids": 8}, "too few identities: expected at least 9, found 8"),
        ({"images": 3}, "too few images an identity: expected at least 4, found 3"),
        ({"height": 48}, "found 48 x 32"),
        ({"height": 16, "width": 8}, "found 16 x 8"),
        ({"height": 60, "width": 30}, "found 60 x 30"),
    ],
)
def test_impossible_arguments_are_one_sentence(changes, sentence):
    asked = {"name": "synth_a", "split": "train"} | SMALL | changes
    with pytest.raises(InputError, match=sentence):
        synthped(asked.pop("name"), asked.pop("split"), **asked)
