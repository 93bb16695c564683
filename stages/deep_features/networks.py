"""The black boxes' networks: BoT, AGW and SBS of FastReID v1.0.0, and small ones of the same kind.

Images are floats in [0, 1], (n, 3, h, w); features float32 (n, D), D = 2048 of ResNet50, 4 x
``mini_width`` of the small net. What differs between the three is an argument (FastReID's
configs/MSMT17/{bagtricks,AGW,sbs}_R50.yml):

==============  ================  ==========================  ============================
argument        BoT               AGW                         SBS
==============  ================  ==========================  ============================
non_local       no                yes                         yes
pool            gap               gem: p = 3                  gem_p: p is learned, from 3
classifier      linear            linear                      cosine (circle loss)
==============  ================  ==========================  ============================

Departures: none of FastReID's (its non-local width of 1, meant to be half the channels, is the
default of ``non_local_width``). The small net is ours: a stem of 3 x 3 and stride 2 without maximum
pooling, one bottleneck a stage with 16, 32, 64 and ``mini_width`` planes, each with a projection as
the first one of every stage of ResNet50 has.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck, resnet50

from stages.common.errors import InputError
from stages.common.networks.weight_files import load_state

Net = Literal["mini", "resnet50"]
Pool = Literal["gap", "gem", "gem_p"]
Classifier = Literal["linear", "circle"]
NonLocalWidth = Literal[1, "half"]

EXPANSION = Bottleneck.expansion  # 4: output channels of a bottleneck by its planes
MINI_PLANES = (16, 32, 64)  # of the first three stages; the last one's are an argument
MINI_STRIDES = (1, 2, 2, 1)  # the last one's is 1 as in FastReID ("LAST_STRIDE: 1")
NON_LOCAL = {  # blocks a non-local one follows; FastReID: the last 2 of layer2, 3 of layer3
    "mini": {"layer2": [0], "layer3": [0]},
    "resnet50": {"layer2": [2, 3], "layer3": [3, 4, 5]},
}
LAYERS = ("layer1", "layer2", "layer3", "layer4")
P = 3.0  # exponent of GeM, or what it starts from (FastReID)
CLAMP = 1e-6  # least value GeM raises to the power p (FastReID)
LINEAR_STD = 1e-3  # of the linear classifier's first weights (FastReID)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # FastReID: PIXEL_MEAN / 255
IMAGENET_STD = (0.229, 0.224, 0.225)  # FastReID: PIXEL_STD / 255


class Output(NamedTuple):
    """What training needs of a batch: pooled before and after the neck, and the classifier's.

    before, after : float32 (n, D).
    scores : float32 (n, ids): logits, or cosines if the classifier is "circle".
    """

    before: Tensor
    after: Tensor
    scores: Tensor


class NonLocal(nn.Module):
    """x + BN(W y), y = (theta(x)^T phi(x) / N) g(x)^T over the N places (FastReID's Non_local).

    Without a softmax the product may be taken from the right, which spares the N x N matrix. The
    norm's weight is 0 at first: the block is the identity. ``width``: channels of theta, phi and g;
    FastReID computes ``reduc_ratio // reduc_ratio``, which is 1.
    """

    def __init__(self, channels: int, width: int = 1):
        super().__init__()
        self.g = nn.Conv2d(channels, width, 1)
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.W = nn.Sequential(nn.Conv2d(width, channels, 1), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.W[1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.W[1].bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        h, w = x.shape[2:]
        g, theta, phi = (conv(x).flatten(2) for conv in (self.g, self.theta, self.phi))
        y = (g @ phi.transpose(1, 2) / (h * w)) @ theta  # (n, width, N)
        return x + self.W(y.unflatten(2, (h, w)))


class GeM(nn.Module):
    """Generalised mean over the places: mean(clamp(x, 1e-6)^p)^(1/p), in 32 bits.

    p = 1 is the mean, p to infinity the maximum; it is learned if ``learned``.
    """

    def __init__(self, p: float = P, *, learned: bool):
        super().__init__()
        self.p = nn.Parameter(torch.full((1,), p)) if learned else p

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        return x.float().clamp(min=CLAMP).pow(self.p).mean((2, 3)).pow(1 / self.p)


class GAP(nn.Module):
    """The mean over the places, in 32 bits."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c"]:
        return x.float().mean((2, 3))


class Backbone(nn.Module):
    """Image -> map of D channels, a 16th (mini: an 8th) of the image's height and width.

    Its names are torchvision's (conv1, bn1, layer1 ...), beside them ``non_local``.
    """

    def __init__(self, net: Net, *, mini_width: int, non_local: bool, non_local_width):
        super().__init__()
        if net == "resnet50":
            whole = resnet50(weights=None)
            last: Any = whole.layer4[0]
            last.conv2.stride = last.downsample[0].stride = (1, 1)
            self.conv1, self.bn1, self.relu = whole.conv1, whole.bn1, whole.relu
            self.maxpool: nn.Module = nn.MaxPool2d(3, 2, ceil_mode=True)
            for name in LAYERS:
                setattr(self, name, getattr(whole, name))
        else:
            stem = MINI_PLANES[0]
            self.conv1 = nn.Conv2d(3, stem, 3, 2, 1, bias=False)
            self.bn1, self.relu = nn.BatchNorm2d(stem), nn.ReLU(inplace=True)
            self.maxpool = nn.Identity()
            channels = stem
            planes = (*MINI_PLANES, mini_width)
            for name, width, stride in zip(LAYERS, planes, MINI_STRIDES, strict=True):
                setattr(self, name, nn.Sequential(_bottleneck(channels, width, stride)))
                channels = EXPANSION * width
            for module in self.modules():
                if isinstance(module, nn.Conv2d):  # as torchvision's and FastReID's ResNet
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.dims: int = getattr(self, LAYERS[-1])[-1].conv3.out_channels
        blocks = {}
        for name, places in NON_LOCAL[net].items() if non_local else ():
            for place in places:
                c = getattr(self, name)[place].conv3.out_channels
                width = c // 2 if non_local_width == "half" else non_local_width
                blocks[f"{name}_{place}"] = NonLocal(c, width)
        self.non_local = nn.ModuleDict(blocks)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d a b"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in LAYERS:
            for place, block in enumerate(getattr(self, name)):
                x = block(x)
                if (key := f"{name}_{place}") in self.non_local:
                    x = self.non_local[key](x)
        return x


def _bottleneck(channels: int, planes: int, stride: int) -> Bottleneck:
    projection = nn.Sequential(
        nn.Conv2d(channels, EXPANSION * planes, 1, stride, bias=False),
        nn.BatchNorm2d(EXPANSION * planes),
    )
    return Bottleneck(channels, planes, stride, projection)


class ReidNet(nn.Module):
    """Image -> feature: backbone, pooling and BNNeck, a batch norm whose bias stays 0.

    In inference mode it returns the neck's output, whatever the triplet loss was on (FastReID's
    EmbeddingHead); in training mode an :class:`Output`. ``normalise`` of the images is its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: Net,
        *,
        ids: int,
        mini_width: int,
        non_local: bool,
        non_local_width: NonLocalWidth,
        pool: Pool,
        classifier: Classifier,
    ):
        super().__init__()
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            constant = torch.tensor(value)[:, None, None]
            self.register_buffer(name, constant, persistent=False)
        self.backbone = Backbone(
            net, mini_width=mini_width, non_local=non_local, non_local_width=non_local_width
        )
        self.dims = self.backbone.dims
        self.pool = GAP() if pool == "gap" else GeM(learned=pool == "gem_p")
        self.neck = nn.BatchNorm1d(self.dims)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Parameter(torch.empty(ids, self.dims))
        self.cosine = classifier == "circle"
        if self.cosine:
            nn.init.kaiming_uniform_(self.classifier, a=5**0.5)
        else:
            nn.init.normal_(self.classifier, std=LINEAR_STD)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Output | Float[Tensor, "n d"]:
        before = self.pool(self.backbone((images - self.mean) / self.std))
        after = self.neck(before).float()
        if not self.training:
            return after
        if self.cosine:
            scores = linear(normalize(after), normalize(self.classifier))
        else:
            scores = linear(after, self.classifier)
        return Output(before, after, scores.float())

    def freeze(self, frozen: bool) -> None:
        """Stop the backbone's batch norms from learning statistics, or let them again.

        Its weights keep wanting gradients, which a DDP group asks of them in every step; to freeze
        them, drop these gradients before the optimizer's step (:meth:`drop_gradients`).
        """
        self.backbone.train(not frozen)

    def drop_gradients(self) -> None:
        """Forget the backbone's gradients: an optimizer then leaves its weights as they are."""
        for parameter in self.backbone.parameters():
            parameter.grad = None


def fuse(net: nn.Module) -> None:
    """Take every batch norm of a net in inference mode into the convolution before it, in place.

    The same function up to rounding, a third faster on a CPU.
    """
    children = list(net.named_children())
    for (name, conv), (following, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(net, name, fuse_conv_bn_eval(conv, norm))
            setattr(net, following, nn.Identity())
    for _, child in children:
        fuse(child)


def parameters(net: nn.Module) -> int:
    """Return how many numbers of ``net`` are learned."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def initialise(backbone: Backbone, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a trained backbone; non-local blocks, which it need not have, keep their start.

    Parameters
    ----------
    state : torchvision's of ResNet50, whose ``fc`` is left out; or that of another black box of
        this paper (a weights file of train_reid), of which the backbone is taken.
    path : of the file, for messages.

    Raises
    ------
    InputError
        If a tensor is missing, unknown or of another shape.
    """
    prefix = "backbone."
    if any(name.startswith(prefix) for name in state):
        state = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    own = {k: v for k, v in backbone.state_dict().items() if k.startswith("non_local.")}
    given = {k: v for k, v in state.items() if not k.startswith("fc.")}
    if not any(k.startswith("layer1.") for k in given):
        raise InputError(
            path,
            "holds no backbone",
            expected="torchvision's ResNet50 or a black box of train_reid",
            found=f"the tensors {', '.join(sorted(given)[:4]) or 'none'}",
            remedy="correct backbone_weights in params.yaml, or leave it out",
        )
    load_state(backbone, {**own, **given}, path)
