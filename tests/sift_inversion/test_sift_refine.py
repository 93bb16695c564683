"""The second stage of training: who is updated when, D's victory, resumption."""

import numpy as np
import pytest
import torch
from killing import Killable
from lightning_fabric import Fabric
from torch import nn

from stages.common.errors import InputError
from stages.common.files import read_json, write_npz
from stages.sift_inversion import refine as stage
from stages.sift_inversion.keypoints import Descriptors, offsets_of, placed, write
from stages.sift_inversion.losses import loss_adversarial, total
from stages.sift_inversion.models import load_run
from stages.sift_inversion.networks import CoarseNet, Discriminator, FineNet, Refined, parameters
from stages.sift_inversion.objective import Joint
from stages.sift_inversion.pairs import to_network
from stages.sift_inversion.refine import Collapse, gradient, refine, update_D, update_RG
from stages.sift_inversion.train import train

N, SIZE, KEYPOINTS = 20, 32, 12
SHARED = {"seeds": [0], "threads": 1, "size": SIZE, "precision": "32-true"}
LOSS = {
    "lambda_p": 1,
    "lambda_s": 1e-4,
    "phi": "random",
    "phi_layer": "relu2_1",
    "phi_weights": None,
    "phi_size": 16,
}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "batch_size": 4, "log_every": 2}
COARSE = {
    **SHARED,
    **LOSS,
    **ADAM,
    "lr_end": 1,
    "l2_first": 0,
    "image_set": "faces",
    "inputs": [4, 2],
    "net": "R",
    "loss": "joint",
    "width": 0.0625,
    "channels": 128,
    "desc_norm": "unit",
    "share": 1,
    "images": 16,
    "n_val": 4,
}
FINE = {
    **SHARED,
    **LOSS,
    **ADAM,
    "adversary": True,
    "conditional": True,
    "adversarial": "bce",
    "n_critic": 2,
    "label_smooth": 1,
    "lambda_joint": 100,
    "lambda_R": 0,
    "ngf": 4,
    "blocks": 1,
    "dropout": 0.5,
    "ndf": 4,
    "d_layers": 2,
    "images": 24,
}


def keypoints(seed=0):
    rng = np.random.default_rng(seed)
    count = N * KEYPOINTS
    others = np.column_stack(
        [1 + 4 * rng.random(count), 360 * rng.random(count), rng.random(count)]
    )
    kp = np.concatenate([rng.random((count, 2)) * SIZE, others], 1).astype(np.float32)
    desc = rng.integers(0, 120, (count, 128), dtype=np.uint8)
    meta = {"size": SIZE, "params": {"r_max": 1, "order": "response", "collision": "adjacent"}}
    offsets, ids = offsets_of([KEYPOINTS] * N), np.arange(N)
    cells = placed(kp, desc, offsets, ids, meta)
    return Descriptors(desc, cells, kp, np.zeros(count, np.int32), offsets, ids, meta)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders of data, descriptors and a coarse run of two seeds."""
    here = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    write_npz(here / "data" / "faces_train.npz", images=images, groups=np.arange(N))
    write(here / "extract" / "faces_train", keypoints())
    folders = here / "data", here / "extract"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CKPT_DIR", str(here / "ckpt"))
        train(*folders, here / "train" / "R42_J", **{**COARSE, "seeds": [0, 1]})
    return *folders, here / "train" / "R42_J"


@pytest.fixture(autouse=True)
def checkpoints(tmp_path, monkeypatch):
    monkeypatch.setenv("CKPT_DIR", str(tmp_path / "ckpt"))


def numbers(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Scene:
    """Networks, optimizers, a batch and the loss, as one step of the stage has them."""

    def __init__(self, **weights):
        torch.manual_seed(0)
        self.fabric = Fabric(accelerator="cpu", devices=1)
        R = CoarseNet([4], size=SIZE, width=0.0625, channels=128)
        nets = Refined(R, FineNet(ngf=4, blocks=1, dropout=0))
        nn.init.normal_(nets.G.layers[-2].weight, 0, 0.1)  # else h(x) = 0
        D = Discriminator(ndf=4, layers=2, conditional=True)
        self.plain, self.plain_D = nets, D
        adam = [torch.optim.Adam(net.parameters(), 1e-3) for net in (nets, D)]
        self.nets, self.opt = self.fabric.setup(nets, adam[0])
        self.D, self.opt_D = self.fabric.setup(D, adam[1])
        images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
        keys = {**LOSS, **weights, "images_seen": 99, "fabric": self.fabric}
        self.joint = Joint(images, **keys)
        self.y, self.place = to_network(images), torch.arange(4)
        self.F = {4: torch.rand(4, 128, 8, 8)}
        self.c, self.o = self.nets(self.F)

    def step_RG(self, D, **keys):
        keys = {"lambda_joint": 100, "lambda_R": 0, "adversarial": "bce"} | keys
        batch = self.c, self.o, self.y, self.place
        return update_RG(self.fabric, self.opt, self.joint, D, *batch, **keys)


def test_a_step_of_D_changes_D_only():
    scene = Scene()
    nets, D = numbers(scene.plain), numbers(scene.plain_D)
    keys = {"n_critic": 1, "adversarial": "bce", "label_smooth": 1}
    batch = scene.c.detach(), scene.y, scene.o.detach()
    log = update_D(scene.fabric, scene.D, scene.opt_D, *batch, **keys)
    assert torch.equal(numbers(scene.plain), nets)
    assert not torch.equal(numbers(scene.plain_D), D)
    assert all(p.grad is None for p in scene.plain.parameters())
    assert 0 <= float(log["d_acc"]) <= 1


def test_a_step_of_R_and_G_changes_both_and_neither_D_nor_phi():
    scene = Scene()
    D, unit = numbers(scene.plain_D), scene.joint.unit
    R, G = numbers(scene.plain.R), numbers(scene.plain.G)
    phi = scene.joint.perceptual(scene.y)
    scene.step_RG(scene.D)
    assert torch.equal(numbers(scene.plain_D), D)
    assert all(p.grad is None and p.requires_grad for p in scene.plain_D.parameters())
    assert torch.equal(scene.joint.perceptual(scene.y), phi) and scene.joint.unit == unit
    assert not torch.equal(numbers(scene.plain.R), R)
    assert not torch.equal(numbers(scene.plain.G), G)


def test_the_gradients_are_those_of_equation_8():
    """Taken in two parts at o, they sum to what one backward through everything gives."""
    scene, plain = Scene(), Scene()
    log = {k: v.detach() for k, v in scene.step_RG(scene.D, lambda_R=0.5).items()}
    o, c, y = plain.o, plain.c, plain.y
    adv = loss_adversarial(plain.plain_D(c.detach(), o))
    L_j, L_R = (total(plain.joint.terms(image, y, plain.place)) for image in (o, c))
    whole = adv + 100 * L_j + 0.5 * L_R
    plain.fabric.backward(whole)
    for a, b in zip(scene.plain.parameters(), plain.plain.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4 * float(b.grad.abs().max()))
    assert float(log["adv"]) == pytest.approx(float(adv.detach()), rel=1e-5)
    assert float(log["loss"]) == pytest.approx(float(whole.detach()), rel=1e-5)
    assert set(log) == {"loss", "adv", "adv_share", "loss_R", "l2", "p", "s"}


def test_the_adversarial_share_is_a_ratio_of_gradients_at_the_output():
    scene = Scene(lambda_p=0, lambda_s=0)
    log = scene.step_RG(scene.D, lambda_joint=10)
    pull = 10 * 2 * (scene.o - scene.y).detach() / scene.o.numel()
    image = scene.o.detach().requires_grad_()
    loss_adversarial(scene.plain_D(scene.c.detach(), image)).backward()
    assert float(log["adv_share"]) == pytest.approx(
        float(image.grad.norm() / pull.norm()), rel=1e-4
    )


def test_a_gradient_at_a_leaf_leaves_no_trace():
    fabric = Fabric(accelerator="cpu", devices=1)
    leaf, weight = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    assert torch.equal(gradient(fabric, (2 * leaf * weight).sum(), leaf), torch.full((3,), 2.0))
    assert leaf.grad is None and weight.grad is None


@pytest.mark.parametrize("n_critic", [1, 5])
def test_D_takes_its_steps_before_each_of_R_and_G_on_the_same_images(
    n_critic, made, tmp_path, monkeypatch
):
    order, images = [], []

    def spy(name, function):
        def noted(*args, **kwargs):
            order.append(name)
            return function(*args, **kwargs)

        return noted

    class Seeing(Discriminator):
        def forward(self, c, image):
            images.append((c.detach().clone(), image.detach().clone()))
            return super().forward(c, image)

    monkeypatch.setattr(stage, "loss_D", spy("D", stage.loss_D))
    monkeypatch.setattr(stage, "loss_adversarial", spy("RG", stage.loss_adversarial))
    monkeypatch.setattr(stage, "Discriminator", Seeing)
    refine(*made, tmp_path / "p" / "refine" / "x", **{**FINE, "n_critic": n_critic})
    assert order == (["D"] * n_critic + ["RG"]) * 6
    first = images[: 2 * n_critic + 1]
    assert all(torch.equal(c, first[0][0]) for c, _ in first)
    assert all(torch.equal(image, first[0][1]) for _, image in first[:-1:2])  # y
    assert all(torch.equal(image, first[1][1]) for _, image in first[1::2])  # o
    assert torch.equal(first[-1][1], first[1][1])


RUNS = {
    "R42_G": {},
    "R42_N": {"adversary": False},
    "stable": {"n_critic": 1, "label_smooth": 0.9, "adversarial": "lsgan"},
    "unconditional": {"conditional": False},
    "with_L_R": {"lambda_R": 1},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_run_trains_and_is_loaded_again(name, made, tmp_path):
    out = tmp_path / "p" / "refine" / name
    refine(*made, out, **{**FINE, **RUNS[name]})
    model = load_run(out, 0, torch.device("cpu"))
    images = model(keypoints().take([3, 0]))
    assert images.shape == (2, 3, SIZE, SIZE) and images.abs().max() <= 1
    coarse = load_run(made[2], 0, torch.device("cpu"))
    assert not torch.equal(model.net.R.halves[0][0].weight, coarse.net.halves[0][0].weight)
    meta, history = read_json(out / "meta.json"), read_json(out / "history-s0.json")
    assert (meta["run"], meta["init"], meta["set"]) == (name, "R42_J", "faces")
    assert meta["adversary"] == (name != "R42_N")
    assert history["parameters_of"]["G"] == parameters(model.net.G)
    assert history["parameters"] == parameters(model.net)
    entry = history["log"][-1]
    assert {"adv", "loss_D", "d_acc", "adv_share"} <= set(entry) or not meta["adversary"]
    assert meta["adversary"] or not {"adv", "loss_D", "d_acc", "adv_share"} & set(entry)
    assert sum(entry[f"share_{k}"] for k in ("l2", "p", "s")) == pytest.approx(1, rel=1e-3)
    parts = [entry[k] for k in ("adv", "loss_R", "l2", "p", "s") if k in entry]
    assert entry["loss"] == pytest.approx(sum(parts), rel=1e-3)
    assert not list((tmp_path / "ckpt").iterdir()), "a finished run leaves no checkpoint"


def test_without_an_adversary_it_starts_from_the_coarse_loss(made, tmp_path):
    """The first step's joint part is a hundred times L_j of the coarse image: G starts at c."""
    out = tmp_path / "p" / "refine" / "x"
    refine(*made, out, **{**FINE, "adversary": False, "lr": 1e-12, "log_every": 1})
    history = read_json(out / "history-s0.json")
    coarse = read_json(made[2] / "history-s0.json")["epochs"][-1]
    terms = {k: history["epochs"][-1][k] / coarse[k] for k in ("val_loss", "val_l2", "val_p")}
    assert all(0.3 < ratio < 3 for ratio in terms.values()), terms
    assert 30 < history["log"][0]["loss"] / coarse["val_loss"] < 300


def test_seeds_start_from_their_own_coarse_weights(made, tmp_path):
    both, one = (tmp_path / "p" / name / "x" for name in ("both", "one"))
    refine(*made, both, **{**FINE, "seeds": [0, 1]})
    refine(*made, one, **{**FINE, "seeds": [1]})
    for name in ("weights-s1.safetensors", "history-s1.json"):
        assert (both / name).read_bytes() == (one / name).read_bytes()
    assert read_json(both / "meta.json")["d_collapse"].keys() == {"0", "1"}


def test_a_discriminator_that_wins_an_epoch_marks_the_run():
    collapse = Collapse()
    for accuracy in (1.0, 0.95):
        collapse.observe(torch.tensor(accuracy))
    collapse.decide(2)
    assert not collapse.record()["d_collapse"]
    for accuracy in (1.0, 0.97):
        collapse.observe(torch.tensor(accuracy))
    collapse.decide(4)
    assert collapse.record() == {"d_collapse": True, "step": 4, "d_acc": pytest.approx(0.985)}
    collapse.observe(torch.tensor(0.5))
    collapse.decide(6)
    assert collapse.record()["step"] == 4


def test_the_mark_reaches_the_files(made, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "COLLAPSED", -1.0)
    out = tmp_path / "p" / "refine" / "x"
    refine(*made, out, **FINE)
    assert read_json(out / "meta.json")["d_collapse"] == {"0": True}
    assert read_json(out / "history-s0.json")["collapse"]["step"] == 4  # an epoch has 4 steps


def test_a_killed_refinement_resumes_bit_for_bit(made, tmp_path):
    """Both Adams, D, batch norm's statistics, dropout's draws and the mark come back."""
    refinement = Killable(tmp_path, "sift_inversion.refine", made, "R42_G", FINE)
    said, out = refinement.cut_and_whole(at=3)
    assert "resuming at step 2 of 6" in said
    assert len(list(out.iterdir())) == 3


def test_bfloat16_refines_and_stays_near_float32(made, tmp_path):
    outs = [tmp_path / "p" / precision / "x" for precision in ("32-true", "bf16-mixed")]
    for out in outs:
        refine(*made, out, **{**FINE, "precision": out.parent.name, "lambda_R": 1})
    a, b = (read_json(out / "history-s0.json")["log"] for out in outs)
    assert [x["loss"] for x in a] == pytest.approx([x["loss"] for x in b], rel=0.05)
    assert a != b


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"batch_size": 17}, "has too few images"), ({"size": 64}, "is of another size")],
)
def test_what_cannot_be_refined_is_one_sentence(changes, words, made, tmp_path):
    with pytest.raises(InputError, match=words):
        refine(*made, tmp_path / "p" / "refine" / "x", **{**FINE, **changes})


def test_a_seed_that_was_not_trained_is_one_sentence(made, tmp_path):
    with pytest.raises(InputError, match="weights-s7.safetensors"):
        refine(*made, tmp_path / "p" / "refine" / "x", **{**FINE, "seeds": [7]})
