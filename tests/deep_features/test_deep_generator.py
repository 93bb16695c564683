"""G and D against the authors' tables, their losses on constants, and phi."""

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn
from torch.nn.functional import avg_pool2d, mse_loss
from torchvision.models import resnet50

from stages.common.errors import InputError
from stages.common.files import write_bytes, write_json
from stages.common.networks.vgg16 import load_vgg16
from stages.deep_features.generator import (
    Discriminator,
    DownBlock,
    Generator,
    UpBlock,
    count_blocks,
    load_generator,
    parameters,
    up2,
)
from stages.deep_features.perceptual import Perceptual, ResNet50Layer1, load_phi
from stages.deep_features.recon_losses import (
    loss_D,
    loss_features,
    loss_G_adversarial,
    loss_pixel,
)

PAPER = {"dims": 2048, "height": 384, "width": 128, "min_map": [12, 4], "c0": 128, "hidden": 256}
SMALL = {"dims": 16, "height": 32, "width": 16, "min_map": [8, 4], "c0": 8, "hidden": 16}
CPU = torch.device("cpu")


def test_the_papers_networks_have_the_authors_parameter_counts():
    assert parameters(Generator(**PAPER, base_g=16)) == 3_656_259
    assert parameters(Discriminator(dims=2048, n_blocks=5, base_d=32)) == 5_937_505


def test_shapes_and_range():
    with torch.device("meta"):
        G, D = Generator(**PAPER, base_g=16), Discriminator(dims=2048, n_blocks=5, base_d=32)
        f = torch.empty(2, 2048)
        assert G(f).shape == (2, 3, 384, 128)
        assert D(torch.empty(2, 3, 384, 128), f).shape == (2, 1)
    G = Generator(**SMALL, base_g=4)
    images = G(100 * torch.randn(5, 16))
    assert images.shape == (5, 3, 32, 16) and images.min() >= 0 and images.max() <= 1


def test_keras_constants():
    G = Generator(**SMALL, base_g=4)
    norms = [layer for layer in G.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 2 * 2 + 1
    assert {(layer.eps, layer.momentum) for layer in norms} == {(1e-3, 0.01)}
    for net in (G, Discriminator(dims=16, n_blocks=2, base_d=4)):
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                assert not layer.bias.any()
                area = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
                limit = (6 / (area * sum(layer.weight.shape[:2]))) ** 0.5
                assert 0.7 * limit < layer.weight.abs().max() <= limit


def test_shortcuts_are_the_tables_in_another_order():
    torch.manual_seed(0)
    x = torch.randn(2, 6, 8, 4)
    up, down = UpBlock(6, 4, 0.01).eval(), DownBlock(6, 4)
    for block in (up, down):
        nn.init.normal_(block.shortcut.bias)
    a = up.conv2(up.norm2(up.conv1(up2(up.norm1(x).relu()))).relu())
    torch.testing.assert_close(up(x), a + up.shortcut(up2(x)), rtol=1e-4, atol=1e-5)
    a = avg_pool2d(down.conv2(down.conv1(x.relu()).relu()), 2)
    torch.testing.assert_close(down(x), a + avg_pool2d(down.shortcut(x), 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("min_map", [[12, 4], [8, 8], [8], [64, 32], [6, 3]])
def test_a_map_that_does_not_double_to_the_images_is_refused(min_map):
    assert count_blocks(64, 32, [8, 4]) == 3 and count_blocks(384, 128, [12, 4]) == 5
    with pytest.raises(InputError, match="min_map: does not suit the images.*64 x 32"):
        count_blocks(64, 32, min_map)


def test_a_generator_is_loaded_again(tmp_path):
    G, equal = (Generator(**SMALL, base_g=4).eval() for _ in range(2))
    write_json(tmp_path / "meta.json", {**SMALL, "base_g": 4, "loss": "fr"})
    for kind, net in (("generator", G), ("generator-equal", equal)):
        write_bytes(tmp_path / f"{kind}-s2.safetensors", save(net.state_dict()))
    f = torch.randn(70, 16)
    found = load_generator(tmp_path, 2, CPU)(f.numpy())
    torch.testing.assert_close(found, G(f).detach(), rtol=1e-4, atol=1e-5)
    found = load_generator(tmp_path, 2, CPU, equal=True)(f)
    torch.testing.assert_close(found, equal(f).detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="generator-s3.safetensors: cannot be used as weights"):
        load_generator(tmp_path, 3)
    write_json(tmp_path / "meta.json", SMALL)
    with pytest.raises(InputError, match="does not say what the network is.*none of base_g"):
        load_generator(tmp_path, 2)


def test_least_squares_losses_on_constants():
    one, zero = torch.ones(4, 1), torch.zeros(4, 1)
    assert loss_D(one, zero) == 0 and loss_D(zero, one) == 1
    assert loss_D(zero, zero) == 0.5 and loss_D(one, one) == 0.5
    assert loss_D(one, 3 * one) == 4.5
    assert loss_G_adversarial(one) == 0 and loss_G_adversarial(zero) == 1
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    both = mse_loss(torch.cat([real, fake]), torch.cat([torch.ones(5, 1), torch.zeros(5, 1)]))
    torch.testing.assert_close(loss_D(real, fake), both)


def test_pixel_and_feature_losses_are_means_of_squares():
    x = torch.rand(2, 3, 4, 4)
    assert loss_pixel(x, x) == 0
    assert loss_pixel(x + 0.5, x).item() == pytest.approx(0.25)
    assert loss_features(x - 2, x).item() == pytest.approx(4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    net = resnet50(weights=None).eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.normal_(layer.running_mean)
    path = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file(net.state_dict(), path)
    return net, path


def test_phi_is_torchvisions_layer1_with_keras_preprocessing(weights):
    net, path = weights
    x = torch.rand(2, 3, 32, 16)
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    z = x[:, [2, 1, 0]] * 255 - mean
    with torch.no_grad():
        expected = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(z)))))
    phi = load_phi("resnet50", "layer1", str(path), "caffe", 1, CPU)
    torch.testing.assert_close(phi(x), expected, rtol=1e-4, atol=1e-2)
    assert phi(x).shape == (2, 256, 8, 4) and (phi(x) >= 0).all()
    assert loss_features(phi(x), phi(x.clone())) == 0
    other = ResNet50Layer1(path, "torchvision")
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    with torch.no_grad():
        z = net.relu(net.bn1(net.conv1((x - mean) / std)))
        torch.testing.assert_close(other(x), net.layer1(net.maxpool(z)), rtol=1e-3, atol=1e-3)


def test_the_mean_colour_becomes_zero(weights):
    net = ResNet50Layer1(weights[1], "caffe")
    rgb = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1) / 255
    seen = []
    net.net["conv1"].register_forward_hook(lambda layer, args, output: seen.append(args[0]))
    net(rgb.expand(1, 3, 8, 8))
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, 8, 8), rtol=0, atol=1e-4)


def test_vgg16_is_the_default_phi_and_averages_first():
    x = torch.rand(2, 3, 16, 8, requires_grad=True)
    whole = load_vgg16("hed", None, ["relu2_2"])
    phi = load_phi("hed", "relu2_2", None, "caffe", 2, CPU)
    expected = whole.features(avg_pool2d(x, 2))[0]
    torch.testing.assert_close(phi(x), expected, rtol=1e-3, atol=1e-3)
    phi(x).sum().backward()
    assert x.grad is not None and x.grad.any()


@pytest.mark.parametrize(
    ("kind", "layer", "path"),
    [("hed", "layer1", None), ("resnet50", "relu2_2", "x.pth"), ("resnet50", "layer1", None)],
)
def test_phi_must_be_said_completely(kind, layer, path):
    with pytest.raises(InputError, match="phi: is not completely said"):
        load_phi(kind, layer, path, "caffe", 1, CPU)


def test_another_networks_weights_are_refused(weights, tmp_path):
    state = {k: v for k, v in weights[0].state_dict().items() if k != "bn1.weight"}
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(InputError, match="for 'bn1.weight', found none"):
        ResNet50Layer1(tmp_path / "less.safetensors", "caffe")


@pytest.mark.parametrize("room", [0, 2**20])
def test_features_of_training_images_are_kept_if_there_is_room(room, monkeypatch):
    monkeypatch.setattr("stages.deep_features.perceptual.KEPT_BYTES", {"cpu": room})
    images = torch.rand(5, 3, 8, 8)
    phi = load_phi("random", "relu1_2", None, "caffe", 1, CPU)
    of = Perceptual(phi, lambda i: images[i], 5, autocast=torch.no_grad, device=CPU)
    assert (of.kept is None) == (room == 0)
    index = torch.tensor([3, 0])
    torch.testing.assert_close(of.of(index, images[index]), phi(images[index]))
