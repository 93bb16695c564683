"""Training steps of every paper: what the stage runs, against the same step written the plain way.

A stage is run up to its loop, and its step is taken from there: ours is the code that trains. The
plain ways run the same stage with what was changed for speed put back:

eager   the same images in memory, but channels first, Adam as ``Adam(parameters, lr)`` makes it,
        32 bits (on a GPU with cuDNN's default TF32, as everybody gets it), no deterministic
        algorithms, and the exact rewrites written out: upsampling and convolution of the large
        map, phi of the originals anew in every step, shortcuts before they are pooled
plain   eager, and every image of a batch by PIL: ToTensor, for Lab scikit-image's rgb2lab; of
        descriptors dense maps, which lie in memory here, and at 256 pixels would not

What changes results is not put back: phi at reduced size, the networks' widths, losses. The
classifier is compared with a loop of its own that is written as in most tutorials. On a GPU the
sizes are those of the ``gpu`` profile, ours has its precision, and two ways more are measured:
``compiled`` (torch.compile of the networks) and ``graphs`` (with CUDA graphs). phi has random
weights, which cost as much as any.
"""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from safetensors.torch import save
from timing import Call, Settings, Way, compare
from torch.nn.functional import avg_pool2d, conv2d, cross_entropy, interpolate, pad, relu
from torch.optim import SGD, Adam
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.common.files import write_bytes, write_json, write_npz
from stages.common.params import stage_params

Patch = tuple[Any, str, object]  # a place, a name there, and what it is meanwhile
TRANSFORMS = transforms.ToTensor()


# ---------------------------------------------------------------- taking a step out of its stage


class Loop(Exception):  # noqa: N818
    """A stage has come to its loop."""


@contextmanager
def changed(patches: list[Patch]) -> Iterator[None]:
    """Hold the patches; cheap, for it is done in every step."""
    before = [(where, name, getattr(where, name)) for where, name, _ in patches]
    for where, name, value in patches:
        setattr(where, name, value)
    try:
        yield
    finally:
        for where, name, value in reversed(before):
            setattr(where, name, value)


@contextmanager
def as_everybody_has_it() -> Iterator[None]:
    """torch's defaults, where the stages choose others."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    tf32 = torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.allow_tf32 = True
    with changed([(torch, "channels_last", torch.contiguous_format)]):
        yield
    torch.use_deterministic_algorithms(deterministic, warn_only=torch.cuda.is_available())
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


def step_of(
    run: Call, loop_in: str, patches: list[Patch], flags: Callable, mark: Call | None = None
) -> Call:
    """Return the step of the training that ``run`` starts.

    Parameters
    ----------
    loop_in : module whose ``fit`` is the loop.
    patches, flags : held while the stage is run and in every step.
    mark : called before every step.
    """

    def fit(step, *, steps, **_):
        raise Loop(step, steps)

    with flags(), changed([*patches, (import_module(loop_in), "fit", fit)]):
        try:
            run()
            raise AssertionError("the stage has no loop")
        except Loop as loop:
            step, steps = loop.args
    place = itertools.count()

    def call() -> None:
        if mark is not None:
            mark()
        with flags(), changed(patches):
            step(next(place) % steps)

    return call


class PlainAdam(Adam):
    """Adam as torch makes it when nothing is said about ``fused`` or ``foreach``."""

    def __init__(self, parameters, lr, *, betas, eps=1e-8, fused=True):
        super().__init__(parameters, lr, betas=betas, eps=eps)


def setup_compiled(mode: str | None) -> Callable:
    original = Fabric.setup

    def setup(self, module, *optimizers, **how):
        module.compile(mode=mode)
        return original(self, module, *optimizers, **how)

    return setup


def ways_of(
    run: Callable[..., Call],
    loop_in: str,
    settings: Settings,
    *,
    rewrites: list[Patch],
    data: list[Patch],
    precision: str,
) -> dict[str, Way]:
    """Return all ways of one training.

    Parameters
    ----------
    run : precision -> what starts the training.
    rewrites, data : what makes it eager, and then plain.
    precision : ours.
    """
    mine = "bf16" if precision.startswith("bf16") else "fp32"

    def build(patches, flags, precision=precision, mark=None):
        return lambda: step_of(lambda: run(precision), loop_in, patches, flags, mark)

    torch_default = partial(build, flags=as_everybody_has_it, precision="32-true")
    ways = {
        "ours": Way(build([], as_it_is), "the stage's step", mine, flops=True),
        "eager": Way(torch_default(rewrites), "plain network, our data", flops=True),
        "plain": Way(torch_default([*rewrites, *data]), "plain network, images by PIL", flops=True),
    }
    if settings.device == "cuda":
        for name, mode, mark in (
            ("compiled", None, None),
            ("graphs", "reduce-overhead", torch.compiler.cudagraph_mark_step_begin),
        ):
            patches: list[Patch] = [(Fabric, "setup", setup_compiled(mode))]
            way = build(patches, as_it_is, mark=mark)
            ways[name] = Way(way, f"ours, torch.compile mode={mode}", mine)
    return ways


# ---------------------------------------------------------------- what the plain ways put back


def by_pil(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> floats in [0, 1], one image after the other."""
    pictures = [TRANSFORMS(Image.fromarray(image)) for image in images.cpu().numpy()]
    return torch.stack(pictures).to(images.device)


def by_pil_signed(images: torch.Tensor) -> torch.Tensor:
    return 2 * by_pil(images) - 1


def plain_nearest_conv(self, input):
    return conv2d(interpolate(input, scale_factor=2), self.weight, self.bias, padding=1)


def plain_up_conv(self, input):
    big = pad(interpolate(input, scale_factor=2, mode="nearest"), (1, 2, 1, 2))
    return conv2d(big, self.weight, self.bias)


def plain_up_block(self, x):
    big = interpolate(x, scale_factor=2)
    a = self.conv1(interpolate(relu(self.norm1(x)), scale_factor=2))
    return self.conv2(relu(self.norm2(a))) + self.shortcut(big)


def plain_down_block(self, x):
    a = avg_pool2d(self.conv2(relu(self.conv1(relu(x)))), 2)
    return a + avg_pool2d(self.shortcut(x), 2)


@torch.no_grad()
def phi_anew(self, index, y):
    return self(y)


# ---------------------------------------------------------------- inputs


def pictures(n: int, size: int, width: int | None = None) -> np.ndarray:
    """Return n images, coarse colours and some noise; a step's time does not depend on them."""
    rng = np.random.default_rng(size)
    width = width or size
    coarse = rng.integers(0, 200, (n, size // 8, width // 8, 3)).repeat(8, 1).repeat(8, 2)
    return (coarse + rng.integers(0, 56, (n, size, width, 3))).astype(np.uint8)


def split(path: Path, n: int, size: int, classes: int = 10) -> np.ndarray:
    images, place = pictures(n, size), np.arange(n, dtype=np.int64)
    write_npz(path, images=images, labels=place % classes, groups=place)
    return images


def keys_of(paper: str, verb: str, settings: Settings, variant: str | None = None) -> dict:
    """Return a stage's parameters of this device's profile, of one seed."""
    function = getattr(import_module(f"stages.{paper}.{verb}"), verb)
    keys = stage_params(function, f"{paper}.{verb}", profile=settings.profile, variant=variant)
    return keys | {"seeds": [0]}


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        with patch.dict(os.environ, {"CKPT_DIR": f"{name}/ckpt"}):
            yield Path(name)


# ---------------------------------------------------------------- paper A


class Pictures(Dataset):
    """What torchvision's CIFAR10 is."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain_classifier(images, labels, net, *, device, batch_size, workers, lr) -> Call:
    """Return a step of the loop that everybody writes."""
    size = images.shape[1]
    augmentation = [transforms.RandomCrop(size, padding=4), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*augmentation, transforms.ToTensor()])
    loader = DataLoader(
        Pictures(images, labels, transform),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )
    net = net.to(device).train()
    optimizer = SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    running = 0.0

    def step() -> None:
        nonlocal running
        with as_everybody_has_it():
            x, y = (part.to(device) for part in next(batches))
            loss = cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()

    return step


def resnet18(
    settings: Settings, peak: Mapping, *, width: int | None = None, batch: int | None = None
) -> dict:
    """A step of paper A's classifier; width and batch on a CPU: the profile's, if not given."""
    from stages.common.checkpoints import Checkpoint
    from stages.common.training import set_up
    from stages.gan_transform import classifier
    from stages.gan_transform.augmentation import crop_flip
    from stages.gan_transform.networks import ResNet18, constant_normalisation

    keys, size = keys_of("gan_transform", "classify", settings), 32
    cpu = settings.device == "cpu"
    width = width or keys["width"]
    batch_size = settings.sized(batch if batch and cpu else keys["batch_size"], 8)
    precision, n = keys["precision"], (1 if batch and cpu else 8) * batch_size
    images, labels = pictures(n, size), np.arange(n) % 10
    recipe = ("lr", "momentum", "weight_decay", "schedule", "milestones", "log_every")

    def run(precision):
        fabric = set_up(threads=1, precision=precision)
        torch.manual_seed(0)
        net = ResNet18(10, constant_normalisation(), width=width)
        on_device, y = (torch.from_numpy(a).to(fabric.device) for a in (images, labels))
        classifier.train_classifier(
            net,
            lambda epoch: crop_flip(on_device, seed=0, epoch=epoch),
            y,
            on_device[:8],
            y[:8],
            fabric=fabric,
            checkpoint=Checkpoint("bench", {}),
            label="bench",
            position=0,
            seed=0,
            epochs=100,
            batch_size=batch_size,
            **{k: keys[k] for k in recipe},
        )

    def plain(workers):
        torch.manual_seed(0)
        net = ResNet18(10, constant_normalisation(), width=width)
        how = {"device": settings.device, "batch_size": batch_size, "workers": workers}
        return plain_classifier(images, labels, net, **how, lr=1e-3)

    with workplace():
        ways = ways_of(
            run, "stages.gan_transform.classifier", settings, rewrites=[], data=[],
            precision=precision,
        )  # fmt: skip
        many = 2 if cpu else 8
        text = "DataLoader, PIL transforms, fp32, channels first"
        ways["plain"] = Way(lambda: plain(0), text, flops=True)
        ways[f"plain_{many}_workers"] = Way(
            lambda: plain(many), f"{text}, {many} worker processes", apart=True
        )
        return compare(
            ways,
            settings,
            what=f"paper A: training step of ResNet-18, width {width}, {size} px, batch"
            f" {batch_size}, {precision}",
            against=("plain", f"plain_{many}_workers", "eager"),
            images=batch_size,
            period=n // batch_size,
            target=2.0,
            peak=peak,
        )


def transform(settings: Settings, peak: Mapping) -> dict:
    """A step of the CycleGAN of paper A."""
    from stages.gan_transform import transform as stage
    from stages.gan_transform.networks import VGG13, constant_normalisation

    keys = keys_of("gan_transform", "transform", settings, "proposed")
    keys |= {"phi": "random" if keys["phi"] != "htheta" else "htheta"}
    keys["batch_size"] = settings.sized(keys["batch_size"], 2)
    n, size = 4 * keys["batch_size"], 32
    with workplace() as here:
        split(here / "data" / "train.npz", n, size)
        split(here / "perturbed" / "P-s0.npz", n, size)
        write_json(here / "data" / "meta.json", {"classes": list(range(10))})
        torch.manual_seed(0)
        net = VGG13(10, constant_normalisation(), keys["target_width"])
        write_bytes(here / "target" / "htheta-s0.safetensors", save(net.state_dict()))
        paths = [here / name for name in ("data", "target", "perturbed", "out")]

        def run(precision):
            stage.transform(*paths, **keys | {"precision": precision})

        ways = ways_of(
            run,
            "stages.gan_transform.transform",
            settings,
            rewrites=[(stage, "Adam", PlainAdam)],
            data=[(stage, "to_network", by_pil)],
            precision=keys["precision"],
        )
        return compare(
            ways,
            settings,
            what=f"paper A: CycleGAN step of h_p, {size} px, batch {keys['batch_size']},"
            f" U-Nets {keys['unet_widths']}, {keys['precision']}",
            against=("plain", "eager"),
            images=keys["batch_size"],
            target=1.5,
            peak=peak,
        )


def attack(settings: Settings, peak: Mapping, *, generator: str) -> dict:
    """A step of the GAN attack of paper A."""
    from stages.common.checkpoints import Checkpoint
    from stages.common.training import set_up
    from stages.gan_transform import reconstruction as module

    keys = keys_of("gan_transform", "attack", settings)
    size = keys_of("gan_transform", "prepare", settings)["attack_size"]
    ga = {k.removeprefix("ga_"): v for k, v in keys.items() if k.startswith("ga_")}
    ga["batch_size"] = settings.sized(ga["batch_size"], 2)
    n = 4 * ga["batch_size"]
    images = pictures(n, size)

    def run(precision):
        fabric = set_up(threads=1, precision=precision)
        training = module.Run(fabric, Checkpoint("bench", {}), "bench", 0, 0, 50)
        module.train_ga(
            images, images[::-1].copy(), validation=(images, images), run=training,
            generator=generator, unet_widths=keys["unet_widths"], validations=1, **ga,
        )  # fmt: skip

    with workplace():
        ways = ways_of(
            run,
            "stages.gan_transform.reconstruction",
            settings,
            rewrites=[(module, "Adam", PlainAdam)],
            data=[(module, "to_network", by_pil)],
            precision=keys["precision"],
        )
        return compare(
            ways,
            settings,
            what=f"paper A: step of the GAN attack, generator {generator}, {size} px, batch"
            f" {ga['batch_size']}, {keys['precision']}",
            against=("plain", "eager"),
            images=2 * ga["batch_size"],
            target=1.5,
            peak=peak,
        )


# ---------------------------------------------------------------- paper B


def descriptors_of(here: Path, n: int, size: int) -> None:
    """Write images and their descriptors as prepare and extract do."""
    from sift import PARAMS, drawn

    from stages.sift_inversion.extract import arrange, find
    from stages.sift_inversion.keypoints import write

    images, place = drawn(n, size), np.arange(n, dtype=np.int64)
    write_npz(here / "data" / "faces_train.npz", images=images, labels=place * 0, groups=place)
    found = arrange(find(images, PARAMS, "SIFT", workers=1), size, PARAMS)
    write(here / "extract" / "faces_train", found)


def dense(pairs: Any) -> Callable:
    """Return a densify that looks maps up which it made when it first saw the descriptors."""
    original, made = pairs.densify, {}

    def look_up(descriptors, index, *, device="cpu", **how):
        if not made:
            whole = original(descriptors, range(len(descriptors)), **how)
            made.update({d: F.contiguous() for d, F in whole.items()})
        return {d: F[torch.as_tensor(index)].to(device) for d, F in made.items()}

    return look_up


def coarse(settings: Settings, peak: Mapping, *, fine: bool) -> dict:
    """A step of R (``train``), or of R, G and D (``refine``), of paper B."""
    from stages.sift_inversion import pairs, perceptual, refine, train
    from stages.sift_inversion.models import build_coarse
    from stages.sift_inversion.networks import NearestConv

    keys = keys_of("sift_inversion", "train", settings, "R42_J")
    batch_size = settings.sized(keys["batch_size"], 2)
    few = {"phi": "random", "batch_size": batch_size}
    keys |= few | {"n_val": 0, "images": 4000 * batch_size}
    n, size = 8 * batch_size, keys["size"]
    stage, verb = (refine, "refine") if fine else (train, "train")
    loop_in = f"stages.sift_inversion.{verb}"
    with workplace() as here:
        descriptors_of(here, n, size)
        paths = [here / "data", here / "extract"]
        if fine:
            shape = {k: keys[k] for k in ("size", "inputs", "net", "width", "channels")}
            shape["desc_norm"] = keys["desc_norm"]
            meta = {"run": "R42_J", "set": "faces", **shape, "share": 1, "n_val": 0}
            write_json(here / "init" / "meta.json", meta)
            weights = save(build_coarse(shape).state_dict())
            write_bytes(here / "init" / "weights-s0.safetensors", weights)
            paths.append(here / "init")
            keys = keys_of("sift_inversion", "refine", settings, "R42_G") | few
            keys["images"] = 4000 * batch_size
        paths.append(here / "out")

        def run(precision):
            getattr(stage, verb)(*paths, **keys | {"precision": precision})

        ways = ways_of(
            run,
            loop_in,
            settings,
            rewrites=[
                (stage, "Adam", PlainAdam),
                (NearestConv, "forward", plain_nearest_conv),
                (perceptual.Perceptual, "of", phi_anew),
            ],
            data=[(pairs, "densify", dense(pairs)), (pairs, "to_network", by_pil_signed)],
            precision=keys["precision"],
        )
        networks = "R, G and D" if fine else "R"
        return compare(
            ways,
            settings,
            what=f"paper B: step of {networks} ({verb}), {size} px, batch {batch_size},"
            f" phi at {keys['phi_size'] or size} px, {keys['precision']}",
            against=("plain", "eager"),
            images=batch_size,
            target=1.5,
            peak=peak,
        )


# ---------------------------------------------------------------- paper C


def reconstruct(settings: Settings, peak: Mapping) -> dict:
    """Two steps of fr_adv of paper C: one of D, one of G."""
    from stages.deep_features import generator, perceptual
    from stages.deep_features import reconstruct as stage

    keys = keys_of("deep_features", "reconstruct", settings, "fr_adv") | {"phi": "random"}
    shape = keys_of("deep_features", "prepare", settings)
    keys["batch_size"] = settings.sized(keys["batch_size"], 2)
    keys |= {"cells": [["bot", "synth_a"]], "steps": 4000}
    n, dims = 8 * keys["batch_size"], 2048 if settings.profile == "gpu" else 256
    with workplace() as here:
        images = pictures(n, shape["height"], shape["width"])
        write_npz(here / "data" / "synth_a_train.npz", images=images)
        sets = {"proprietary": "synth_p", "locals": ["synth_a"], "sets": {"synth_a": {}}}
        write_json(here / "data" / "meta.json", sets)
        features = np.random.default_rng(0).standard_normal((n, dims)).astype(np.float32)
        write_npz(here / "extract" / "bot" / "synth_a_train-s0.npz", features=features)
        paths = [here / "data", here / "extract", here / "out"]

        def run(precision):
            stage.reconstruct(*paths, **keys | {"precision": precision})

        ways = ways_of(
            run,
            "stages.deep_features.reconstruct",
            settings,
            rewrites=[
                (stage, "Adam", PlainAdam),
                (generator.UpBlock, "forward", plain_up_block),
                (generator.DownBlock, "forward", plain_down_block),
                (perceptual.Perceptual, "of", phi_anew),
            ],
            data=[(stage, "to_floats", by_pil)],
            precision=keys["precision"],
        )
        return compare(
            ways,
            settings,
            what=f"paper C: step of fr_adv (D and G in turn), {shape['height']} x"
            f" {shape['width']} px, batch {keys['batch_size']}, {keys['precision']}",
            against=("plain", "eager"),
            images=keys["batch_size"],
            period=2,
            target=1.5,
            peak=peak,
        )


# ---------------------------------------------------------------- paper D


def lab_by_skimage(self, index):
    """The pairs of :class:`stages.colourisation.train.Pairs`, one image after the other."""
    from skimage.color import rgb2lab

    xs, ys = [], []
    for image in self.images[index].cpu().numpy():
        lab = rgb2lab(np.asarray(Image.fromarray(image))).astype(np.float32)
        xs.append(torch.from_numpy(lab[None, ..., 0] / 50 - 1))
        ys.append(torch.from_numpy(lab[..., 1:].transpose(2, 0, 1) / 110))
    device = self.images.device
    return torch.stack(xs).to(device), torch.stack(ys).to(device)


def colourise(settings: Settings, peak: Mapping, *, variant: str) -> dict:
    """A step of G and D of paper D."""
    from stages.colourisation import train as stage
    from stages.common.networks.up_conv import UpConv

    keys = keys_of("colourisation", "train", settings, variant)
    keys["batch_size"] = settings.sized(keys["batch_size"], 4)
    keys |= {"epochs": 1000, "log_every": 10**6}  # the share of gradients is a log entry's
    size = keys_of("colourisation", "prepare", settings)["size"]
    with workplace() as here:
        for name, n in (("train", 8 * keys["batch_size"]), ("val", 4), ("test", 4)):
            split(here / "data" / f"{name}.npz", n, size)

        def run(precision):
            stage.train(here / "data", here / "out", **keys | {"precision": precision})

        ways = ways_of(
            run,
            "stages.colourisation.train",
            settings,
            rewrites=[(stage, "Adam", PlainAdam), (UpConv, "forward", plain_up_conv)],
            data=[(stage.Pairs, "at", lab_by_skimage)],
            precision=keys["precision"],
        )
        return compare(
            ways,
            settings,
            what=f"paper D: step of G and D, variant {variant}, {size} px, batch"
            f" {keys['batch_size']}, {keys['precision']}",
            against=("plain", "eager"),
            images=keys["batch_size"],
            target=1.5,
            peak=peak,
        )


ITEMS = {
    "resnet18": resnet18,
    "resnet18_width64": partial(resnet18, width=64, batch=16),
    "gan_transform": transform,
    "gan_attack_unet": partial(attack, generator="unet"),
    "gan_attack_shared": partial(attack, generator="shared"),
    "sift_train": partial(coarse, fine=False),
    "sift_refine": partial(coarse, fine=True),
    "deep_reconstruct": reconstruct,
    "colourisation_bn": partial(colourise, variant="bn"),
    "colourisation_bn_sn": partial(colourise, variant="bn_sn"),
    "colourisation_bn_sn_md": partial(colourise, variant="bn_sn_md"),
}
