import pytest
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d
from torchvision.models import resnet50

from stages.common.errors import InputError
from stages.deep_features.networks import (
    GAP,
    Backbone,
    GeM,
    NonLocal,
    Output,
    ReidNet,
    fuse,
    initialise,
)

MODELS = {
    "bot": {"non_local": False, "pool": "gap", "classifier": "linear"},
    "agw": {"non_local": True, "pool": "gem", "classifier": "linear"},
    "sbs": {"non_local": True, "pool": "gem_p", "classifier": "circle"},
}


def network(model="bot", net="mini", *, ids=5, mini_width=8, non_local_width=1):
    torch.manual_seed(0)
    shape = {"ids": ids, "mini_width": mini_width, "non_local_width": non_local_width}
    return ReidNet(net, **shape, **MODELS[model])


def images(n=4, h=64, w=32):
    return torch.rand((n, 3, h, w), generator=torch.Generator().manual_seed(1))


def macs(net, *size):
    """Multiplications of all convolutions for one image."""
    total = 0

    def count(module, _, output):
        nonlocal total
        total += output.shape[2:].numel() * module.weight.numel()

    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    hooks = [conv.register_forward_hook(count) for conv in convs]
    net.eval()(torch.zeros((1, 3, *size), device=net.mean.device))
    for hook in hooks:
        hook.remove()
    return total


def test_gem_of_one_is_the_mean_and_of_infinity_the_maximum():
    x = torch.rand((3, 5, 4, 2), generator=torch.Generator().manual_seed(0)) + 0.01
    mean, most = adaptive_avg_pool2d(x, 1)[..., 0, 0], adaptive_max_pool2d(x, 1)[..., 0, 0]
    assert torch.allclose(GeM(1.0, learned=False)(x), mean)
    assert torch.allclose(GAP()(x), mean)
    assert torch.allclose(GeM(60.0, learned=False)(x), most, rtol=0.05)
    cube = (x**3).mean((2, 3)) ** (1 / 3)
    assert torch.allclose(GeM(learned=True)(x), cube)
    assert GeM(learned=False)(torch.zeros(1, 1, 2, 2)).item() == pytest.approx(1e-6)


def test_only_sbs_learns_the_exponent():
    learned = {m: [k for k, _ in network(m).named_parameters() if k == "pool.p"] for m in MODELS}
    assert learned == {"bot": [], "agw": [], "sbs": ["pool.p"]}
    assert network("agw").pool.p == 3 and network("sbs").pool.p.item() == 3


def test_a_fused_net_computes_the_same_with_fewer_layers():
    net = network("sbs").train()
    for _ in range(3):
        net(images())  # statistics other than 0 and 1
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    want = net.eval()(images())
    fuse(net.backbone.requires_grad_(False))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert torch.allclose(net(images()), want, rtol=1e-4, atol=1e-5)


def test_a_non_local_block_is_the_identity_at_first_and_its_formula_later():
    torch.manual_seed(0)
    block = NonLocal(6, 2).eval()
    x = torch.randn(2, 6, 3, 4)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.W[1].weight)
    y = torch.zeros(2, 2, 3, 4)
    g, theta, phi = block.g(x), block.theta(x), block.phi(x)
    for n in range(2):
        for i in range(12):
            a, b = divmod(i, 4)
            for j in range(12):
                c, d = divmod(j, 4)
                y[n, :, a, b] += theta[n, :, a, b] @ phi[n, :, c, d] / 12 * g[n, :, c, d]
    assert torch.allclose(block(x), x + block.W(y), atol=1e-5)
    assert not torch.allclose(block(x), x, atol=1e-3)


@pytest.mark.parametrize(
    ("net", "places"),
    [
        ("mini", ["layer2_0", "layer3_0"]),
        ("resnet50", ["layer2_2", "layer2_3", "layer3_3", "layer3_4", "layer3_5"]),
    ],
)
def test_non_local_blocks_follow_the_last_ones_of_the_second_and_third_layer(net, places):
    with torch.device("meta"):  # shapes alone
        one, half = (network("agw", net, non_local_width=w).backbone for w in (1, "half"))
        assert list(network("bot", net).backbone.non_local) == []
    assert list(one.non_local) == list(half.non_local) == places
    blocks = [backbone.non_local[places[0]].g for backbone in (one, half)]
    assert [g.out_channels for g in blocks] == [1, blocks[0].in_channels // 2]


def test_the_small_net_has_the_size_of_the_design():
    net = network("bot", mini_width=64)
    assert net.dims == 256
    assert macs(net, 64, 32) == pytest.approx(14.5e6, rel=0.01)
    assert net.backbone(images()).shape == (4, 256, 8, 4)


def test_resnet50_has_the_size_and_the_map_of_the_design():
    with torch.device("meta"):
        net = network("bot", "resnet50")
        # the counts of the design, in GMAC
        assert macs(net, 256, 128) == pytest.approx(4.05e9, rel=0.01)
        assert macs(net, 384, 128) == pytest.approx(6.08e9, rel=0.01)
        assert net.backbone(torch.zeros(1, 3, 256, 128)).shape == (1, 2048, 16, 8)
    assert net.dims == 2048


def test_torchvisions_weights_give_torchvisions_maps_before_the_last_layer(tmp_path):
    theirs = resnet50(weights=None).eval()
    own = network("bot", "resnet50").eval().backbone
    initialise(own, theirs.state_dict(), tmp_path)
    x = images(1)
    ours = own.layer3(own.layer2(own.layer1(own.maxpool(own.relu(own.bn1(own.conv1(x)))))))
    stem = nn.MaxPool2d(3, 2, ceil_mode=True)(theirs.relu(theirs.bn1(theirs.conv1(x))))
    assert torch.equal(ours, theirs.layer3(theirs.layer2(theirs.layer1(stem))))
    assert own(x).shape[2:] == ours.shape[2:], "the last layer keeps the map's size"


@pytest.mark.parametrize("model", MODELS)
def test_features_are_the_necks_output_and_its_bias_is_not_learned(model):
    net = network(model)
    net.neck.weight.data.uniform_(0.5, 2)
    net.neck.running_mean.uniform_(0, 1)
    assert not net.neck.bias.requires_grad and net.neck.bias.abs().max() == 0
    x = images()
    features = net.eval()(x)
    pooled = net.pool(net.backbone((x - net.mean) / net.std))
    scale = net.neck.weight / (net.neck.running_var + net.neck.eps).sqrt()
    assert torch.allclose(features, (pooled - net.neck.running_mean) * scale, atol=1e-5)
    output = net.train()(x)
    assert isinstance(output, Output)
    assert torch.allclose(output.after, net.neck(output.before), atol=1e-5)
    weights = net.classifier
    if model == "sbs":
        cosine = torch.cosine_similarity(output.after[:, None], weights[None], dim=2)
        assert torch.allclose(output.scores, cosine, atol=1e-5)
    else:
        assert torch.allclose(output.scores, output.after @ weights.T, atol=1e-5)


def test_images_are_normalised_by_imagenets_constants():
    net = network()
    grey = torch.tensor([123.675, 116.28, 103.53])[:, None, None] / 255
    assert torch.allclose((grey - net.mean) / net.std, torch.zeros(3, 1, 1), atol=1e-6)
    assert torch.allclose(net.std.flatten() * 255, torch.tensor([58.395, 57.12, 57.375]))


def test_a_frozen_backbone_keeps_its_statistics_and_drops_its_gradients():
    net = network("sbs").train()
    net.freeze(True)
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    mean = net.neck.running_mean.clone()
    output = net(images())
    (output.scores.square().sum() + output.before.sum()).backward()
    assert all(p.grad is not None for p in net.backbone.parameters()), "a DDP group waits for them"
    net.drop_gradients()
    assert all(p.grad is None for p in net.backbone.parameters())
    assert net.classifier.grad is not None and net.pool.p.grad is not None
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert not torch.equal(mean, net.neck.running_mean)
    net.freeze(False)
    net(images()).scores.square().sum().backward()
    assert all(p.grad is not None for p in net.backbone.parameters())
    assert not torch.equal(before["bn1.running_mean"], net.backbone.bn1.running_mean)


def test_a_black_box_can_start_from_anothers_backbone(tmp_path):
    bot = network("bot")
    nn.init.constant_(bot.backbone.bn1.weight, 0.5)
    sbs = network("sbs")
    initialise(sbs.backbone, bot.state_dict(), tmp_path)
    for name, value in bot.backbone.state_dict().items():
        assert torch.equal(sbs.backbone.state_dict()[name], value)
    x = images()
    assert torch.equal(sbs.backbone.eval()(x), bot.backbone.eval()(x))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": torch.zeros(1)}, "holds no backbone"),
        ({"layer1.0.conv1.weight": torch.zeros(2, 2, 1, 1)}, "'conv1.weight'"),
    ],
)
def test_other_weights_are_refused(state, words, tmp_path):
    shape = {"mini_width": 8, "non_local": False, "non_local_width": 1}
    with pytest.raises(InputError, match=words):
        initialise(Backbone("mini", **shape), state, tmp_path / "w.pth")
