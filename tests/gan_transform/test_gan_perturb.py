import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from stages.common.files import write_json, write_npz
from stages.gan_transform.networks import VGG13, constant_normalisation
from stages.gan_transform.perturb import guidance, perturb, protect


@pytest.fixture(scope="module")
def h():
    torch.manual_seed(0)
    return VGG13(10, constant_normalisation(), 8).eval().requires_grad_(False)


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    x = torch.rand((6, 3, 32, 32), generator=draw)
    return x, torch.arange(6), x + 0.1 * (2 * torch.rand(x.shape, generator=draw) - 1)


SETTINGS = {"epsilon": 0.1, "alpha": 0.02, "steps": 10}


def test_stays_in_the_ball_and_in_the_cube_and_lowers_the_loss(h, batch):
    x, y, start = batch
    x_p, log = protect(h, x, y, start, **SETTINGS)
    assert (x_p - x).abs().max() <= 0.1 + 1e-6
    assert x_p.min() >= 0 and x_p.max() <= 1
    assert cross_entropy(h(x_p), y) < cross_entropy(h(x), y)
    assert (h(x_p).argmax(1) == y).sum() >= (h(x).argmax(1) == y).sum()
    assert [set(entry) for entry in log] == [{"ce", "zero_gradient", "saturated"}] * 10
    assert log[-1]["ce"] < log[0]["ce"]


def test_the_opposite_sign_raises_the_loss(h, batch):
    x, y, start = batch
    x_p, _ = protect(h, x, y, start, **SETTINGS | {"alpha": -0.02})
    assert cross_entropy(h(x_p), y) > cross_entropy(h(x), y)


def test_equals_a_targeted_attack_written_from_the_equations(h, batch):
    """Madry et al.'s iteration towards the true class, from the same start."""
    x, y, start = batch
    x_p, _ = protect(h, x, y, start, **SETTINGS)
    expected = torch.clamp(start, x - 0.1, x + 0.1).clamp(0, 1)
    for _ in range(10):
        expected.requires_grad_(True)
        (g,) = torch.autograd.grad(cross_entropy(h(expected), y), expected)
        step = torch.max(torch.min(expected.detach() - 0.02 * g.sign(), x + 0.1), x - 0.1)
        expected = step.clamp(0, 1)
    assert torch.allclose(x_p, expected, atol=1e-6)


def test_saturated_logits_still_move():
    """Cross entropy has a gradient of exactly 0 there, the margin has not."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(200 * torch.eye(3, 12))
    x = torch.zeros(1, 3, 2, 2)
    x[0, 0, 0, 0] = 0.6
    y = torch.tensor([0])
    probe = x.clone().requires_grad_(True)
    (g,) = torch.autograd.grad(cross_entropy(net(probe), y), probe)
    assert not g.any()
    x_p, log = protect(net, x, y, x, epsilon=0.1, alpha=0.05, steps=2)
    assert log[0]["saturated"] == 1 and log[0]["zero_gradient"] < 1
    assert x_p[0, 0, 0, 0] > x[0, 0, 0, 0]


def test_margin_and_cross_entropy_agree_in_direction():
    z = torch.tensor([[2.0, 0.5, -1.0]], requires_grad=True)
    y = torch.tensor([0])
    (soft,) = torch.autograd.grad(guidance(z, y).sum(), z)
    sure = (z.detach() * 20).requires_grad_(True)
    (hard,) = torch.autograd.grad(guidance(sure, y).sum(), sure)
    assert torch.equal(soft.sign(), hard.sign())


def test_the_stage_writes_bytes_within_the_ball_and_what_the_target_sees(h, tmp_path):
    from safetensors.torch import save_file

    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    data, target = tmp_path / "data", tmp_path / "target"
    labels = np.arange(12) % 10
    write_npz(data / "train.npz", images=images, labels=labels, groups=np.arange(12))
    write_json(data / "meta.json", {"classes": list("abcdefghij")})
    target.mkdir()
    save_file(h.state_dict(), target / "htheta-s0.safetensors")
    perturb(
        data, target, tmp_path / "perturb", seeds=[0], threads=1, target_width=8, epsilon=0.1,
        steps=3, alpha_factor=2.5, n=10, batch_size=4,
    )  # fmt: skip
    with np.load(tmp_path / "perturb" / "P-s0.npz") as P:
        far = np.abs(P["images"].astype(int) - images[:10]).max()
    assert 0 < far <= 0.1 * 255 + 0.5
    with np.load(tmp_path / "perturb" / "evaluation.npz") as found:
        assert found["correct"].shape == found["ssim"].shape == (1, 10)
        assert found["correct"].sum() >= found["correct_plain"].sum()
