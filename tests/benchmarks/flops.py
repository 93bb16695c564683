"""Floating-point operations of the long stages at the authors' scale, counted on a CPU.

``python tests/benchmarks/flops.py`` writes reports/bench/flops.json, in a few minutes and without
data or weights. A stage is run up to its loop with the parameters of profile ``paper``, on a batch
or two of made-up images of the profile's size; torch's FlopCounterMode counts its first steps, of
tensors that have shapes and no values (convolutions and matrix products; one multiply-add is two
operations). The entries hold the operations an image, the images of one training, how many
trainings there are, and their precision.

What was checked by hand stands in tests/test_costs.py. Not counted: what is no training (perturb,
encrypt, evaluations), attribute heads, and what validates on the way.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save  # noqa: E402
from steps import Loop, Patch, changed, descriptors_of, pictures, split, workplace  # noqa: E402
from torch._subclasses.fake_tensor import (  # noqa: E402
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from torchvision.models import resnet50  # noqa: E402

from stages.common.checkpoints import Checkpoint  # noqa: E402
from stages.common.files import write_bytes, write_json, write_npz  # noqa: E402
from stages.common.params import load_params, stage_params  # noqa: E402
from stages.common.training import set_up  # noqa: E402

FEW = 2  # images, where their number does not matter
FEATURES = 2048  # of ResNet50
MSMT17 = 32_621  # training images (Wei et al., CVPR 2018), with its validation list, left out here
RANDOM: dict[str, Any] = {"phi": "random", "phi_weights": None}  # VGG16 without a file of weights
SMALL: dict[str, Any] = {"seeds": [0], "precision": "32-true"}  # neither changes what is counted
Runs = dict[str, dict[str, Any]]


def scale(paper: str, verb: str, variant: str | None = None) -> dict[str, Any]:
    """Return a stage's parameters of profile ``paper``."""
    function = getattr(import_module(f"stages.{paper}.{verb}"), verb)
    return stage_params(function, f"{paper}.{verb}", profile="paper", variant=variant)


def computed(function: Callable) -> Callable:
    """Return ``function`` computing values where all around it has shapes only."""

    def call(*arguments, **keys):
        with unset_fake_temporarily():
            return function(*arguments, **keys)

    return call


class Places(np.ndarray):
    """Numbers of images, as ``batch_at`` gives them, for a step that asks for their values."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def places(i: int, *, seed: int, size: int, batch_size: int) -> Places:
    """Stand in for ``batch_at``."""
    return np.arange(batch_size).view(Places)


def operations(
    loop_in: str, run: Callable, *, of_steps: int = 1, patches: Sequence[Patch] = ()
) -> float:
    """Return the operations of a step of the training that ``run`` starts; nothing is computed.

    Parameters
    ----------
    loop_in : module whose ``fit`` is the loop.
    of_steps : the mean of so many, if they differ.
    patches : held in the step: what needs values there; none of it would be counted.
    """

    def fit(step, **_):
        raise Loop(step)

    with changed([(import_module(loop_in), "fit", fit)]):
        try:
            run()
            raise AssertionError("the stage has no loop")
        except Loop as loop:
            (step,) = loop.args
    shapes = FakeTensorMode(allow_non_fake_inputs=True)
    with changed(list(patches)), shapes, FlopCounterMode(display=False) as counter:
        for i in range(of_steps):
            step(i)
    return counter.get_total_flops() / of_steps


def of_network(net: torch.nn.Module, x: torch.Tensor, *, backward: bool = True) -> float:
    """Return the operations an image of ``net``, forward and (``backward``) back to its weights."""
    with FlopCounterMode(display=False) as counter:
        y = net(x)
        if backward:
            y.sum().backward()
    return counter.get_total_flops() / len(x)


def entry(flop: float, images: int, trainings: int, keys: dict[str, Any]) -> dict[str, Any]:
    return {
        "flop_per_image": float(flop),
        "images": images,
        "trainings": trainings,
        "precision": keys["precision"] if keys.get("amp", True) else "32-true",
    }


# ---------------------------------------------------------------- paper A


def classifiers() -> tuple[Runs, Runs]:
    """h_theta and the classifiers of all schemes; ``client`` encrypts every image in every epoch.

    The networks alone, on the meta device: the loop adds nothing that is counted.
    """
    from stages.gan_transform.networks import (
        VGG13,
        Adaptation,
        ResNet18,
        constant_normalisation,
        translator,
    )

    sets = scale("gan_transform", "prepare")
    side, classes, others = sets["size"], 10, 100  # of CIFAR-10 and CIFAR-100
    keys = scale("gan_transform", "train_target")
    with torch.device("meta"):
        x = torch.empty(FEW, 3, side, side)
        h = of_network(VGG13(classes, constant_normalisation(), keys["target_width"]), x)
    images = keys["epochs"] * sets["n_train"]
    target = {"h_theta": entry(h, images, len(keys["seeds"]), keys)}
    keys, params = scale("gan_transform", "classify"), load_params()["gan_transform"]
    found = {}
    for name in params["schemes"]:
        scheme = params["encrypt"]["schemes"][name]
        tanaka = scheme["cipher"] == "tanaka"
        for task, n, count, epochs in (
            ("ten", sets["n_train"], classes, keys["epochs"]),
            ("transfer", sets["n_transfer_train"], others, keys["transfer_epochs"]),
        ):
            with torch.device("meta"):
                front = Adaptation() if tanaka else constant_normalisation()
                channels = Adaptation.CHANNELS if tanaka else 3
                net = ResNet18(count, front, channels=channels, width=keys["width"])
                h_p = translator(scale("gan_transform", "transform", "proposed")["unet_widths"])
                one, hidden = of_network(net, x), of_network(h_p, x, backward=False)
            for arm in scheme.get("augment", ["client"]):
                more = hidden if scheme["cipher"] == "transform" and arm == "client" else 0
                found[f"{name} {task} {arm}"] = entry(
                    one + more, epochs * n, len(keys["seeds"]), keys
                )
    return target, found


def transforms(here: Path) -> Runs:
    from stages.gan_transform import transform as stage
    from stages.gan_transform.networks import VGG13, constant_normalisation

    sets = scale("gan_transform", "prepare")
    batch = scale("gan_transform", "transform", "proposed")["batch_size"]
    for path in ("data/train", "perturbed/P-s0"):
        split(here / f"{path}.npz", 2 * batch, sets["size"])
    write_json(here / "data" / "meta.json", {"classes": list(range(10))})
    paths, found = [here / name for name in ("data", "target", "perturbed", "out")], {}
    for name in load_params()["gan_transform"]["variants"]:
        keys = scale("gan_transform", "transform", name)
        h = VGG13(10, constant_normalisation(), keys["target_width"])
        write_bytes(here / "target" / "htheta-s0.safetensors", save(h.state_dict()))
        small = keys | SMALL | RANDOM | {"lp_cap": "on"}  # auto would look at values
        flop = operations(stage.__name__, lambda small=small: stage.transform(*paths, **small))
        images = keys["epochs"] * sets["n_train"]
        found[name] = entry(flop / batch, images, len(keys["seeds"]), keys)
    return found


def attacks() -> Runs:
    """The trained attacks, each on every scheme; an image of GA is a cipher and a plain one."""
    from stages.gan_transform import reconstruction as module

    keys, sets = scale("gan_transform", "attack"), scale("gan_transform", "prepare")
    images = pictures(max(keys["ga_batch_size"], keys["uwa_batch_size"]), sets["attack_size"])
    trainings = len(load_params()["gan_transform"]["schemes"]) * len(keys["seeds"])
    n, unet, found = sets["n_attack_train"], {"unet_widths": keys["unet_widths"]}, {}

    def count(name: str, function: Callable, how: dict[str, Any], seen: int, **more) -> None:
        def run():
            fabric = set_up(threads=1, precision="32-true")
            training = module.Run(fabric, Checkpoint("flops", {}), "flops", 0, 0, 50)
            function(images, images, run=training, **how, **more)

        flop = operations(module.__name__, run) / how["batch_size"]
        found[name] = entry(flop, seen, trainings, keys)

    ga, uwa, itn = (
        {k.removeprefix(p): v for k, v in keys.items() if k.startswith(p)}
        for p in ("ga_", "uwa_", "itn_")
    )
    for name in keys["generators"]:
        more = {"generator": name, "validations": 1, "validation": (images, images), **unet}
        count(f"ga_{name}", module.train_ga, ga, ga["iterations"] * ga["batch_size"], **more)
    network = uwa.pop("network")
    for name, of, reduce in (
        ("uwa_literal", network, "mean"),
        ("uwa_strong", network, "sum"),
        ("uwa_block", "block", "sum"),
    ):
        count(name, module.train_uwa, uwa, uwa["epochs"] * n, network=of, reduce=reduce)
    count("itn", module.train_itn, itn, itn["epochs"] * n, **unet)
    return found


def gan_transform(here: Path) -> dict[str, Runs]:
    target, classified = classifiers()
    transformed, attacked = transforms(here), attacks()
    return {
        "train_target": target,
        "transform": transformed,
        "attack": attacked,
        "classify": classified,
    }


# ---------------------------------------------------------------- papers B and C
#
# phi of the originals is computed in every step there: at this scale it does not fit into the 16
# GiB in which a GPU would keep it (B: 8,000 maps of 4 MiB; C: 12,936 and 16,522 of 3 MiB).


def sift_inversion(here: Path) -> dict[str, Runs]:
    from stages.sift_inversion import pairs, perceptual, refine, train

    params = load_params()["sift_inversion"]
    keys = scale("sift_inversion", "train", params["coarse"][0])
    descriptors_of(here, 2 * keys["batch_size"], keys["size"])
    for folder in ("data", "extract"):  # the other set has the same images here
        for path in sorted((here / folder).glob("faces_train*")):
            path.with_name(path.name.replace("faces", "multi")).symlink_to(path)
    paths, few = (here / "data", here / "extract"), SMALL | RANDOM
    whole: dict[str, Any] = few | {"n_val": 0, "share": 1}
    coarse, fine, maps = {}, {}, (pairs.Pairs, "at", computed(pairs.Pairs.at))
    unit = [(perceptual, "UNIT_IMAGES", 1), (perceptual, "AT_ONCE", 1)]  # of no image more
    with changed([(perceptual, "KEPT_BYTES", {"cpu": 0}), *unit]):
        for name in params["coarse"]:
            keys = scale("sift_inversion", "train", name)
            small = keys | whole
            flop = operations(
                train.__name__,
                lambda small=small, name=name: train.train(*paths, here / name, **small),
                patches=[(train, "batch_at", places), maps],
            )
            coarse[name] = entry(
                flop / keys["batch_size"], keys["images"], len(keys["seeds"]), keys
            )
        runs = [(f"{name}_G", f"{name}_J") for name in params["refined"]]
        runs += [(f"{name}_N", f"{name}_J") for name in params["controls"]]
        for name, init in runs:
            of_init = scale("sift_inversion", "train", init) | whole
            with changed([(train, "fit", no_step)]):  # R's weights, untrained
                train.train(*paths, here / init, **of_init)
            keys = scale("sift_inversion", "refine", name)
            flop = operations(
                refine.__name__,
                lambda keys=keys, name=name, init=init: refine.refine(
                    *paths, here / init, here / name, **keys | few
                ),
                patches=[(refine, "batch_at", places), maps],
            )
            fine[name] = entry(flop / keys["batch_size"], keys["images"], len(keys["seeds"]), keys)
    return {"train": coarse, "refine": fine}


def no_step(*_, **__) -> dict[str, Any]:
    return {"log": [], "epochs": [], "images_per_s": 0.0}


def deep_features(here: Path) -> dict[str, Runs]:
    from stages.deep_features import perceptual, reconstruct, train_reid
    from stages.deep_features.pixels import to_floats

    params, sets = load_params()["deep_features"], scale("deep_features", "prepare")
    weights, people, each = here / "resnet50.pth", 16, 16  # as many as any batch has
    torch.save(resnet50(weights=None).state_dict(), weights)
    images = pictures(people * each, sets["height"], sets["width"])
    pids = np.repeat(np.arange(people, dtype=np.int64), each)
    write_npz(here / "data" / "p_train.npz", images=images, pids=pids)
    write_npz(here / "data" / "a_train.npz", images=images)
    meta = {"proprietary": "p", "locals": ["a"], "sets": {"a": {}}}
    write_json(here / "data" / "meta.json", meta)
    features = np.random.default_rng(0).standard_normal((len(images), FEATURES), np.float32)
    write_npz(here / "extract" / "bot" / "a_train-s0.npz", features=features)
    reid, found = {}, {}
    for name in params["models"]:
        keys = scale("deep_features", "train_reid", name)
        small = keys | SMALL | {"backbone_weights": str(weights), "freeze": 0}
        flop = operations(
            train_reid.__name__,
            lambda small=small, name=name: train_reid.train_reid(
                here / "data", here / name, **small
            ),
            patches=[(train_reid, "augment", lambda images, **_: to_floats(images))],
        )
        seen = round(keys["epochs"] * keys["epochs_share"] * MSMT17)
        batch = keys["ids_per_batch"] * keys["per_id"]
        reid[name] = entry(flop / batch, seen, len(keys["seeds"]), keys)
    paths = here / "data", here / "extract"
    with changed([(perceptual, "KEPT_BYTES", {"cpu": 0})]):
        for name in params["losses"]:
            keys = scale("deep_features", "reconstruct", name)
            small = keys | SMALL | {"cells": [["bot", "a"]], "phi_weights": str(weights)}
            flop = operations(
                reconstruct.__name__,
                lambda small=small, name=name: reconstruct.reconstruct(
                    *paths, here / name, **small
                ),
                of_steps=2,  # fr_adv updates D and G in turn
            )
            seen = keys["steps"] * keys["batch_size"]
            trainings = len(keys["cells"]) * len(keys["seeds"])
            found[name] = entry(flop / keys["batch_size"], seen, trainings, keys)
    return {"train_reid": reid, "reconstruct": found}


# ---------------------------------------------------------------- paper D


def colourisation(here: Path) -> dict[str, Runs]:
    from stages.colourisation import train as stage

    sets, found = scale("colourisation", "prepare"), {}
    batch = scale("colourisation", "train", "bn")["batch_size"]
    for name, n in (("train", batch), ("val", FEW), ("test", FEW)):
        split(here / "data" / f"{name}.npz", n, sets["size"])
    for name in load_params()["colourisation"]["variants"]:
        keys = scale("colourisation", "train", name)
        small = keys | SMALL
        flop = operations(
            stage.__name__,
            lambda small=small: stage.train(here / "data", here / "out", **small),
        )
        images = keys["epochs"] * sets["n_train"]
        found[name] = entry(flop / batch, images, len(keys["seeds"]), keys)
    return {"train": found}


PAPERS = (gan_transform, sift_inversion, deep_features, colourisation)


def main() -> None:
    torch.set_num_threads(1)
    found = {}
    for paper in PAPERS:
        with workplace() as here:
            found[paper.__name__] = paper(here)
        for stage, runs in found[paper.__name__].items():
            each = [f"{run['flop_per_image'] / 1e9:.4g}" for run in runs.values()]
            print(f"{paper.__name__}.{stage}: {', '.join(each)} GFLOP an image", flush=True)
    assert __doc__ is not None
    write_json(
        Path("reports/bench/flops.json"),
        {"what": " ".join(__doc__.split()), "torch": torch.__version__, "papers": found},
    )


if __name__ == "__main__":
    main()
