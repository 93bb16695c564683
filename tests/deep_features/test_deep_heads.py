"""The attribute heads, their loss and their measure, against other implementations."""

import numpy as np
import pytest
import torch
from safetensors.torch import save
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import batch_norm, cross_entropy, linear, relu

from stages.common.errors import InputError
from stages.common.files import write_bytes, write_json
from stages.deep_features.balanced_accuracy import balanced_accuracy, balanced_weights
from stages.deep_features.head_training import (
    class_weights,
    targets,
    train_heads,
    weighted_cross_entropy,
)
from stages.deep_features.heads import Heads, load_heads, membership, parameters, widths

CLASSES = [4, 2, 3]


def made_up(n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, K, n) for K in CLASSES], 1)
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), torch.tensor(labels)


def test_class_weights_are_scikit_learns():
    _, y = made_up()
    expected = [
        compute_class_weight("balanced", classes=np.arange(K), y=column)
        for K, column in zip(CLASSES, y.T.numpy(), strict=True)
    ]
    torch.testing.assert_close(
        class_weights(y, CLASSES).double(), torch.from_numpy(np.concatenate(expected)), rtol=1e-6,
        atol=0,
    )  # fmt: skip
    assert class_weights(y, CLASSES, balanced=False).tolist() == [1] * 9


def test_a_class_without_an_image_weighs_nothing():
    weights = class_weights(torch.tensor([[0], [0], [2]]), [3])
    assert weights.tolist() == [0.5, 0, 1]


def test_the_weighted_loss_is_the_mean_over_the_batch_not_over_the_weights():
    _, y = made_up()
    w = class_weights(y, CLASSES)
    logits = 3 * torch.randn(2, 60, 9, generator=torch.Generator().manual_seed(1))
    logits[1] += 100  # of no consequence
    goal = targets(y, CLASSES, w)
    found = weighted_cross_entropy(logits, torch.stack([goal] * 2), CLASSES)
    by_hand, by_weights, start = torch.zeros(2), torch.zeros(2), 0
    for t, K in enumerate(CLASSES):
        for s in range(2):
            z, w_t = logits[s, :, start : start + K], w[start : start + K]
            each = cross_entropy(z, y[:, t], reduction="none")
            by_hand[s] += (w_t[y[:, t]] * each).mean()
            by_weights[s] += cross_entropy(z[:20], y[:20, t], weight=w_t)
        start += K
    torch.testing.assert_close(found, by_hand, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(by_weights, by_hand, rtol=1e-2)
    uneven = torch.tensor([[0.0, 0, 0, 0, -200, 200, 0, 0, 0]])  # tasks on quite other levels
    one = targets(torch.tensor([[0, 1, 0]]), CLASSES, torch.ones(9))
    found = weighted_cross_entropy(uneven[None], one[None], CLASSES)
    assert found.item() == pytest.approx(np.log(4) + np.log(3), rel=1e-6)


def test_balanced_accuracy_is_scikit_learns_also_where_a_class_is_absent():
    rng = np.random.default_rng(0)
    truth = np.stack([rng.integers(0, 3, 50), rng.choice([0, 3], 50)], 1)
    guesses = rng.integers(0, 4, (2, 50, 2))
    found = balanced_accuracy(truth, guesses)
    for s in range(2):
        for t in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("warnings.warn", lambda *_, **__: None)  # of classes never true
                expected = balanced_accuracy_score(truth[:, t], guesses[s, :, t])
            assert found[s, t] == pytest.approx(expected, abs=1e-12)


def test_a_constant_guess_reaches_one_over_the_classes_that_occur():
    truth = np.array([[0, 0], [0, 2], [2, 2], [5, -1], [-1, -1]])
    found = balanced_accuracy(truth, np.zeros((5, 2), np.int64))
    assert found.tolist() == pytest.approx([1 / 3, 1 / 2])
    assert balanced_weights(truth).sum(0).tolist() == pytest.approx([1, 1])
    assert balanced_weights(np.full((3, 1), -1)).tolist() == [[0], [0], [0]]


def test_widths_fall_geometrically():
    assert widths(2048, 2, 1) == [2048, 2]
    assert widths(2048, 2, 2) == [2048, 64, 2]
    assert widths(2048, 9, 3) == [2048, 335, 54, 9]  # 2048 (9 / 2048)^(i / 3)


def test_one_block_has_batch_norm_and_a_full_connection_for_each_task():
    heads = Heads(2048, CLASSES)
    assert parameters(heads) == 3 * 2 * 2048 + 9 * 2048 + 9
    assert heads.eval()(torch.zeros(1, 2, 2048)).shape == (1, 2, 9)
    assert membership([1, 2]).tolist() == [[1, 0], [0, 1], [0, 1]]


def by_layers(heads, x, s, training):
    """Compute stack ``s`` one task and one block at a time, by torch's own layers."""
    sizes = [widths(heads.dims, K, len(heads.blocks)) for K in heads.classes]
    found = []
    for t, units in enumerate(sizes):
        h = x
        for i, block in enumerate(heads.blocks):
            rows = slice(sum(u[i + 1] for u in sizes[:t]), sum(u[i + 1] for u in sizes[: t + 1]))
            if i == 0:
                columns, gamma, beta = slice(None), block.gamma[s, t], block.beta[s, t]
            else:
                columns = slice(sum(u[i] for u in sizes[:t]), sum(u[i] for u in sizes[: t + 1]))
                gamma, beta = block.gamma[s, columns], block.beta[s, columns]
            mean, var = block.mean[s, 0, columns].clone(), block.var[s, 0, columns].clone()
            h = batch_norm(relu(h) if i else h, mean, var, gamma, beta, training, eps=1e-3)
            h = linear(h, block.weight[s, rows, columns], block.bias[s, 0, rows])
            assert h.shape[1] == units[i + 1]
        found.append(h)
    return torch.cat(found, 1)


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_heads_computed_together_equal_heads_computed_alone(blocks, training):
    torch.manual_seed(0)
    heads = Heads(24, CLASSES, blocks=blocks, stack=2)
    with torch.no_grad():
        for block in heads.blocks:
            for value in (block.gamma, block.beta, block.bias, block.mean):
                value += 0.3 * torch.randn_like(value)
            block.var *= 1 + torch.rand_like(block.var)
    x = 2 * torch.randn(2, 30, 24) + 1
    expected = torch.stack([by_layers(heads, x[s], s, training) for s in range(2)])
    torch.testing.assert_close(heads.train(training)(x), expected, rtol=1e-4, atol=1e-4)


def test_running_averages_have_keras_momentum_and_biased_variance():
    heads = Heads(4, [2])
    x = torch.randn(1, 10, 4) + 3
    heads(x)
    block = heads.blocks[0]
    torch.testing.assert_close(block.mean[0, 0], 0.01 * x[0].mean(0))
    torch.testing.assert_close(block.var[0, 0], 0.99 + 0.01 * x[0].var(0, correction=0))


def test_weights_are_glorot_uniform_within_a_task():
    torch.manual_seed(0)
    first, second = Heads(400, [2, 2], blocks=2).blocks
    assert second.weight.shape == (1, 4, 2 * 28)
    assert (second.weight[0, :2, 28:] == 0).all() and (second.weight[0, 2:, :28] == 0).all()
    limit = (6 / (28 + 2)) ** 0.5
    assert 0.9 * limit < second.weight.abs().max() <= limit
    assert 0.98 * (6 / 428) ** 0.5 < first.weight.abs().max() <= (6 / 428) ** 0.5
    assert not first.bias.any()


RECIPE = {"epochs": 3, "batch_size": 20, "lr": 1e-2, "lr_late": 1e-3, "beta1": 0.9, "beta2": 0.999}


def trained(stack, features, labels, weighted):
    torch.manual_seed(3)
    heads = Heads(8, CLASSES, stack=stack)
    log = list(train_heads(heads, features, labels, weighted=weighted, seed=5, **RECIPE))
    assert [entry["epoch"] for entry in log] == [1, 2, 3] and log[-1]["loss"] < log[0]["loss"]
    return heads


def test_stacks_trained_together_equal_those_trained_alone():
    (x, y), (other, _) = made_up(), made_up(seed=1)
    both = trained(2, [x, other], [y, y], [True, False])
    for s, (features, weighted) in enumerate(((x, True), (other, False))):
        alone = trained(1, [features], [y], [weighted])
        for name, value in alone.take(0).items():
            torch.testing.assert_close(both.take(s)[name], value, rtol=1e-4, atol=1e-6)
        assert torch.equal(both.predict(torch.stack([x] * 2))[s], alone.predict(x[None])[0])


def test_too_few_images_and_a_diverging_loss_are_said():
    x, y = made_up()
    heads = Heads(8, CLASSES)
    with pytest.raises(InputError, match="fewer annotated training images than a batch.*found 19"):
        next(train_heads(heads, [x[:19]], [y[:19]], weighted=[True], seed=0, **RECIPE))
    x[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged in epoch 0"):
        next(train_heads(heads, [x], [y], weighted=[True], seed=0, **RECIPE))


def test_heads_are_loaded_again(tmp_path):
    heads = Heads(8, CLASSES).eval()
    tasks = [{"name": str(K), "classes": [str(c) for c in range(K)]} for K in CLASSES]
    write_bytes(tmp_path / "heads-s4.safetensors", save(heads.take(0)))
    write_json(tmp_path / "meta.json", {"dims": 8, "blocks": 1, "tasks": tasks})
    loaded = load_heads(tmp_path, 4, torch.device("cpu"))
    x = made_up()[0]
    found = loaded(x.numpy())
    assert found.dtype == np.int64 and found.shape == (60, 3)
    assert np.array_equal(found, heads.predict(x[None])[0].numpy())
    assert np.array_equal(found, loaded(x))
    with pytest.raises(InputError, match="heads-s5.safetensors: cannot be used as weights"):
        load_heads(tmp_path, 5)
    write_json(tmp_path / "meta.json", {"dims": 8, "blocks": 1})
    with pytest.raises(InputError, match="does not say what the heads are.*none of tasks"):
        load_heads(tmp_path, 4)
