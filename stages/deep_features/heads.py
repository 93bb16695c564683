"""The attribute heads (Sec. III-B): one small network a task, from a feature to class logits.

A block is batch norm and a fully connected layer; ReLU lies between blocks. With b blocks the
widths fall geometrically from D to the K classes, as in the authors' code: block i has
floor(D (K/D)^(i/b)) units. All tasks see the same feature, each through its own batch norm, and
are computed together: the first block as one matrix product, later ones as a matrix that is block
diagonal over the tasks. In front stands an axis s of independent stacks of heads, which are trained
side by side on other data (:func:`stages.deep_features.head_training.train_heads`).

Keras' constants: batch norm with epsilon 1e-3 and, over features, the biased variance in the
running average too; weights Glorot uniform, biases 0.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn
from torch.nn.functional import relu

from stages.common.device import evaluation_device
from stages.common.errors import InputError
from stages.common.files import read_json
from stages.common.networks.weight_files import load_state, read_state

BN_EPS = 1e-3  # Keras' BatchNormalization
BN_MOMENTUM = 0.01  # 1 - Keras' 0.99
AT_ONCE = 4096  # features that are classified at once


def widths(dims: int, classes: int, blocks: int) -> list[int]:
    """Return D, the units of each block, and K last: a geometric sequence, rounded down."""
    factor = (classes / dims) ** (1 / blocks)
    return [dims, *(int(dims * factor**i) for i in range(1, blocks)), classes]


def membership(sizes: Sequence[int]) -> Float[Tensor, "k t"]:
    """Return which of consecutive units belong to which task, as 0 and 1."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return (owner[:, None] == torch.arange(len(sizes))).float()


class Block(nn.Module):
    """Batch norm and fully connected layer of all tasks, in every stack.

    In the first block the tasks share the input and its statistics, not the scale and shift.

    Parameters
    ----------
    inputs, units : of each task.
    shared : whether all tasks have the same inputs.
    """

    mean: Tensor
    var: Tensor
    member: Tensor  # unit x task
    own: Tensor  # unit x input: 1 where both are of one task

    def __init__(
        self,
        inputs: Sequence[int],
        units: Sequence[int],
        *,
        shared: bool,
        stack: int,
        bn_momentum: float,
    ):
        super().__init__()
        self.shared, self.momentum = shared, bn_momentum
        total = inputs[0] if shared else sum(inputs)
        norm = (stack, len(inputs), total) if shared else (stack, total)
        self.gamma = nn.Parameter(torch.ones(norm))
        self.beta = nn.Parameter(torch.zeros(norm))
        self.register_buffer("mean", torch.zeros(stack, 1, total))
        self.register_buffer("var", torch.ones(stack, 1, total))
        member = membership(units)
        own = torch.ones(len(member), total) if shared else member @ membership(inputs).T
        self.register_buffer("member", member, persistent=False)
        self.register_buffer("own", own, persistent=False)
        weight = torch.empty(len(member), total)
        for row, task in zip(weight, member.argmax(1).tolist(), strict=True):
            limit = (6 / (inputs[task] + units[task])) ** 0.5  # Glorot & Bengio, AISTATS 2010
            row.uniform_(-limit, limit)
        self.weight = nn.Parameter((weight * own).repeat(stack, 1, 1))
        self.bias = nn.Parameter(torch.zeros(stack, 1, len(member)))

    def forward(self, x: Float[Tensor, "s n i"]) -> Float[Tensor, "s n u"]:
        if self.training:
            mean = x.mean(1, keepdim=True)
            x = x - mean
            var = x.square().mean(1, keepdim=True)
            self.mean.lerp_(mean.detach(), self.momentum)
            self.var.lerp_(var.detach(), self.momentum)
        else:
            x, var = x - self.mean, self.var
        x = x * (var + BN_EPS).rsqrt()
        if not self.shared:
            x = x * self.gamma[:, None] + self.beta[:, None]
            return torch.baddbmm(self.bias, x, (self.weight * self.own).mT)
        gamma, beta = (self.member @ part for part in (self.gamma, self.beta))  # s, u, i
        shift = (self.weight * beta).sum(-1)[:, None]
        return torch.baddbmm(self.bias + shift, x, (self.weight * gamma).mT)


class Heads(nn.Module):
    """Heads of T tasks, ``stack`` times with the same initial weights: torch's current seed.

    Parameters
    ----------
    dims : D, of the features.
    classes : K of each task.
    blocks : 1 in the paper's best results.
    """

    def __init__(
        self,
        dims: int,
        classes: Sequence[int],
        *,
        blocks: int = 1,
        stack: int = 1,
        bn_momentum: float = BN_MOMENTUM,
    ):
        super().__init__()
        self.dims, self.classes, self.stack = dims, list(classes), stack
        units = list(zip(*(widths(dims, K, blocks) for K in classes), strict=True))
        self.blocks = nn.ModuleList(
            Block(a, b, shared=i == 0, stack=stack, bn_momentum=bn_momentum)
            for i, (a, b) in enumerate(pairwise(units))
        )

    def forward(self, x: Float[Tensor, "s n d"]) -> Float[Tensor, "s n k"]:
        """Return the logits of all tasks' classes, one task after the other."""
        for i, block in enumerate(self.blocks):
            x = block(relu(x) if i else x)
        return x

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "s n d"]) -> Int64[Tensor, "s n t"]:
        """Return the most probable class of each task; the heads should be in inference mode."""
        parts = []
        for some in x.split(AT_ONCE, 1):
            of_tasks = self(some).split(self.classes, -1)
            parts.append(torch.stack([logits.argmax(-1) for logits in of_tasks], -1))
        return torch.cat(parts, 1)

    def take(self, s: int) -> dict[str, Tensor]:
        """Return the state dict of one stack, as if it had been trained alone."""
        return {
            name: value[s : s + 1].detach().cpu().clone()
            for name, value in self.state_dict().items()
        }


def parameters(net: nn.Module) -> int:
    """Return the number of trained values, the zeros between tasks in later blocks included."""
    return sum(p.numel() for p in net.parameters())


class TrainedHeads:
    """What one seed's heads learned: features -> predictions.

    meta : the cell's meta.json, with "tasks": [{"name", "classes"}].
    heads : in inference mode, frozen.
    """

    def __init__(self, meta: dict[str, Any], heads: Heads, device: torch.device):
        self.meta, self.heads, self.device = meta, heads, device

    def __call__(
        self, features: Float32[np.ndarray, "n d"] | Float32[Tensor, "n d"]
    ) -> Int64[np.ndarray, "n t"]:
        """Return the class of each task for each feature."""
        x = torch.as_tensor(features).to(self.device)
        return self.heads.predict(x[None])[0].cpu().numpy()


def load_heads(folder: Path, seed: int, device: torch.device | None = None) -> TrainedHeads:
    """Return the headline heads that ``attributes`` trained with ``seed``.

    Parameters
    ----------
    folder : of a cell, .../attributes/<model>-<set>.
    device : default: the GPU if there is one, in full precision.

    Raises
    ------
    InputError
        If a file is missing or damaged, or the weights are of other heads.
    """
    meta = read_json(folder / "meta.json")
    if missing := [key for key in ("dims", "blocks", "tasks") if key not in meta]:
        raise InputError(
            folder / "meta.json",
            "does not say what the heads are",
            expected="the keys dims, blocks, tasks",
            found=f"none of {', '.join(missing)}",
            remedy="run the stage that writes it (dvc repro)",
        )
    classes = [len(task["classes"]) for task in meta["tasks"]]
    heads = Heads(meta["dims"], classes, blocks=meta["blocks"])
    file = folder / f"heads-s{seed}.safetensors"
    load_state(heads, read_state(file), file)
    device = evaluation_device() if device is None else device
    return TrainedHeads(meta, heads.eval().requires_grad_(False).to(device), device)
