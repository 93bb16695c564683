"""Two processes under torchrun (gloo, on the CPU) give what one process gives, in every paper.

Each stage runs as a user runs it, ``torchrun -m stages.<paper>.<verb>``, and once in this process,
on the same files with the parameters of the smoke profile. Of a batch the processes take every
second image, and DDP averages their gradients: the sums are added in another order, and nothing
else differs, as long as a loss is a mean over images and no layer looks across the batch. Batch
norm does: in a group it sees a process's half only, and the running averages that are saved are
those of the first process. So where a network has batch norm, the one process normalises every half
by itself, too (``of_halves``), and a run without that is the control: the test can tell them apart.

Compared is the norm of the difference of all weights against the norm of the weights. Rounding
gives 1e-8 to 1e-6; TOLERANCE is 1e-4. Only with max pooling is it 0.02: of two nearly equal values
another one passes on the gradient after a rounding error, and one such window among the 128 of the
last pools moves it by 1 %. And Adam moves a weight whose gradient is nearly 0 by the whole rate, to
the side that rounding gives: behind batch norm such are one weight in a hundred of paper B's
adversarial training, which makes 1.1e-4 of it after two steps.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from stages.colourisation.train import train as train_colours
from stages.common.files import write_json, write_npz
from stages.common.params import load_params, stage_params
from stages.deep_features.prepare import prepare as draw_people
from stages.deep_features.reconstruct import reconstruct
from stages.gan_transform.perturb import perturb
from stages.gan_transform.train_target import train_target
from stages.gan_transform.transform import transform
from stages.sift_inversion.extract import extract
from stages.sift_inversion.refine import refine
from stages.sift_inversion.train import train as train_coarse

TOLERANCE, OF_ADVERSARIES, WITH_MAX_POOLING = 1e-4, 2e-4, 0.02
ROOT = Path(__file__).parents[1]
PROCESSES = 2


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory with params.yaml, as its own."""
    params = load_params()
    smoke = params["profiles"]["smoke"]
    smoke["deep_features"]["reconstruct"] |= {"w_adv": 0.06, "phi": "random"}  # no norm of a half
    smoke["sift_inversion"]["refine"] |= {"dropout": 0, "phi": "random"}
    with (tmp_path / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / ".ckpt"))
    return tmp_path


def in_two_processes(name, *paths, variant=None):
    """Run a stage under torchrun; its last path is the folder that it writes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={PROCESSES}", "-m", f"stages.{name}", *map(str, paths)]
    command += ["--profile", "smoke"] + (["--variant", variant] if variant else [])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"MEMBER: {PROCESSES}/{PROCESSES}" in done.stderr + done.stdout
    return done.stdout


def in_one_process(function, name, *paths, variant=None):
    """Run the same stage here, with the same parameters."""
    keys = stage_params(function, name, profile="smoke", variant=variant, path=Path("params.yaml"))
    function(*paths, **keys)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def difference(one, two, without=None):
    """Return how far the numbers of two files are apart, all but those named ``without``."""
    if one.suffix == ".safetensors":
        first, second = ({k: v.numpy() for k, v in load_file(f).items()} for f in (one, two))
    else:
        first, second = (dict(np.load(file)) for file in (one, two))
    assert first.keys() == second.keys()
    names = [key for key in first if without is None or not re.search(without, key)]
    a, b = (
        np.concatenate([x[k].astype(np.float64).ravel() for k in names]) for x in (first, second)
    )
    return np.linalg.norm(a - b) / np.linalg.norm(a)


def epochs(folder, name="history-s0.json"):
    """Return what was measured on whole sets, which no process divides."""
    return json.loads((folder / name).read_text())["epochs"]


def of_halves(monkeypatch):
    """Normalise every second image of a batch apart from the others, as two processes do."""
    norm, whole = torch.nn.functional.batch_norm, torch.nn.BatchNorm2d.forward

    def forward(self, x):
        if not self.training or self.momentum is None:  # None: update_bn, of which each does all
            return whole(self, x)
        how = (self.weight, self.bias, True, self.momentum, self.eps)
        self.num_batches_tracked += 1
        first = norm(x[::2], self.running_mean, self.running_var, *how)
        return torch.stack([first, norm(x[1::2], None, None, *how)], 1).flatten(0, 1)

    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", forward)


def pictures(path, n, size):
    """Write n images of noise, of 4 classes, 2 of each motif; equal pixels would tie in pools."""
    images = np.random.default_rng(n).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    place = np.arange(n, dtype=np.int64)
    write_npz(path, images=images, labels=place % 4, groups=place // 2)


def test_paper_a_its_classifier_with_batch_norm(here, monkeypatch):
    for split, n in (("train", 32), ("test", 24)):
        pictures(here / "data" / f"{split}.npz", n, 32)
    write_json(here / "data" / "meta.json", {"classes": list("wxyz")})
    name, data = "gan_transform.train_target", here / "data"
    in_two_processes(name, data, here / "two")
    in_one_process(train_target, name, data, here / "whole")
    of_halves(monkeypatch)
    in_one_process(train_target, name, data, here / "one")
    assert files_in(here / "two") == files_in(here / "one")
    one, two, whole = (here / run / "htheta-s0.safetensors" for run in ("one", "two", "whole"))
    assert difference(one, two) <= WITH_MAX_POOLING
    assert difference(whole, two) > 5 * WITH_MAX_POOLING


def test_paper_a_its_cyclegan_calls_each_generator_twice_in_a_step(here, monkeypatch):
    """What batch norm saves is taken anew at the end; a bias before it has no gradient."""
    data, target, perturbed = (here / name for name in ("data", "target", "perturbed"))
    for split, n in (("train", 48), ("test", 8)):
        pictures(data / f"{split}.npz", n, 32)
    write_json(data / "meta.json", {"classes": list("wxyz")})
    in_one_process(train_target, "gan_transform.train_target", data, target)
    in_one_process(perturb, "gan_transform.perturb", data, target, perturbed)
    name, inputs = "gan_transform.transform", (data, target, perturbed)
    in_two_processes(name, *inputs, here / "two", variant="proposed")
    in_one_process(transform, name, *inputs, here / "whole", variant="proposed")
    of_halves(monkeypatch)
    in_one_process(transform, name, *inputs, here / "one", variant="proposed")
    files = (here / run / "generator-s0.safetensors" for run in ("one", "two", "whole"))
    one, two, whole = files
    moot = r"running_|\.0\.bias$|\.3\.bias$"
    assert difference(one, two, without=moot) <= WITH_MAX_POOLING / 10
    assert difference(whole, two, without=moot) > WITH_MAX_POOLING / 10


def test_paper_b_a_network_without_batch_norm(here):
    """B5, of Dosovitskiy & Brox; the validation loss, too, which no process divides."""
    for image_set in ("faces", "multi"):
        for split, n in (("train", 48), ("test", 4)):
            pictures(here / "data" / f"{image_set}_{split}.npz", n, 64)
    name, inputs = "sift_inversion.train", (here / "data", here / "extract")
    in_one_process(extract, "sift_inversion.extract", *inputs)
    in_two_processes(name, *inputs, here / "two", variant="B5")
    in_one_process(train_coarse, name, *inputs, here / "one", variant="B5")
    assert files_in(here / "two") == files_in(here / "one")
    one, two = (here / run / "weights-s0.safetensors" for run in ("one", "two"))
    assert difference(one, two) <= TOLERANCE
    assert epochs(here / "two")[-1] == pytest.approx(epochs(here / "one")[-1], rel=TOLERANCE)


def test_paper_b_its_discriminator_is_called_twice_in_a_step(here, monkeypatch):
    """R and D have batch norm; no dropout, whose masks each process draws for its own half."""
    for image_set in ("faces", "multi"):
        for split, n in (("train", 48), ("test", 4)):
            pictures(here / "data" / f"{image_set}_{split}.npz", n, 64)
    inputs = (here / "data", here / "extract")
    in_one_process(extract, "sift_inversion.extract", *inputs)
    in_one_process(train_coarse, "sift_inversion.train", *inputs, here / "R42_J", variant="R42_J")
    name, inputs = "sift_inversion.refine", (*inputs, here / "R42_J")
    in_two_processes(name, *inputs, here / "two", variant="R42_G")
    in_one_process(refine, name, *inputs, here / "whole", variant="R42_G")
    of_halves(monkeypatch)
    in_one_process(refine, name, *inputs, here / "one", variant="R42_G")
    one, two, whole = (here / run / "weights-s0.safetensors" for run in ("one", "two", "whole"))
    moot = r"bias$|running_"
    assert difference(one, two, without=moot) <= OF_ADVERSARIES
    assert difference(whole, two, without=moot) > 5 * OF_ADVERSARIES


def test_paper_c_a_generator_with_batch_norm_and_an_adversary(here, monkeypatch):
    """fr_adv: G has batch norm, D sees fakes of G in inference mode; w_adv is given.

    A bias before a normalisation has no gradient but rounding, of which Adam makes whole steps, and
    the running mean takes it up: these are not compared.
    """
    data, extracted = here / "data", here / "extract"
    in_one_process(draw_people, "deep_features.prepare", data)
    features = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
    write_npz(extracted / "bot" / "synth_a_train-s0.npz", features=features)
    name, inputs = "deep_features.reconstruct", (data, extracted)
    in_two_processes(name, *inputs, here / "two", variant="fr_adv")
    in_one_process(reconstruct, name, *inputs, here / "whole", variant="fr_adv")
    of_halves(monkeypatch)
    in_one_process(reconstruct, name, *inputs, here / "one", variant="fr_adv")
    assert files_in(here / "two") == files_in(here / "one")
    files = (here / run / "bot-synth_a/generator-s0.safetensors" for run in ("one", "two", "whole"))
    one, two, whole = files
    moot = r"(conv\d|shortcut)\.bias$|running_mean$"
    assert difference(one, two, without=moot) <= TOLERANCE
    assert difference(whole, two, without=moot) > 5 * TOLERANCE


def test_paper_d_a_generator_with_an_adversary(here):
    """Variant ``in``: instance norm looks at one image; what G predicts for whole sets.

    Not its weights: a bias before instance norm changes no prediction and has no gradient but
    rounding, of which Adam makes whole steps.
    """
    for split, n in (("train", 48), ("val", 8), ("test", 8)):
        pictures(here / "data" / f"{split}.npz", n, 32)
    name, data = "colourisation.train", here / "data"
    in_two_processes(name, data, here / "two", variant="in")
    in_one_process(train_colours, name, data, here / "one", variant="in")
    assert files_in(here / "two") == files_in(here / "one")
    one, two = (here / run / "predictions-s0.npz" for run in ("one", "two"))
    assert difference(one, two) <= 5 * TOLERANCE  # predictions are written in 16 bits
    assert epochs(here / "two")[-1] == pytest.approx(epochs(here / "one")[-1], rel=TOLERANCE)
