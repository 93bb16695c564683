"""The joint loss of eq. (7) on training pairs, and its validation, for both stages of training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn

from stages.sift_inversion.losses import joint_terms
from stages.sift_inversion.pairs import Pairs
from stages.sift_inversion.perceptual import Perceptual, Phi, PhiLayer, load_phi

TERMS = ("lambda_p", "lambda_s", "phi", "phi_layer", "phi_weights", "phi_size")  # of a Joint
VALIDATE_AT_ONCE = 64  # images


class Joint:
    """L_j with its weights; loads phi only if a weight asks for it.

    Parameters
    ----------
    images : the training images, on the device.
    images_seen : of the whole run; if they are more than ``images``, phi of these is kept.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "n s s 3"],
        *,
        lambda_p: float | int,
        lambda_s: float | int,
        phi: Phi,
        phi_layer: PhiLayer,
        phi_weights: str | None,
        phi_size: int | None,
        images_seen: int,
        fabric: Fabric,
    ):
        self.lambda_p, self.lambda_s = lambda_p, lambda_s
        self.perceptual = None
        if lambda_p or lambda_s:
            size, device = images.shape[1], images.device
            net = load_phi(phi, phi_layer, phi_weights, size=size, phi_size=phi_size, device=device)
            keep = images_seen > len(images)
            self.perceptual = Perceptual(net, images, autocast=fabric.autocast, keep=keep)

    @property
    def unit(self) -> float | None:
        """What phi is divided by; None if it is not used."""
        return None if self.perceptual is None else self.perceptual.unit

    def terms(
        self,
        o: Float[Tensor, "b 3 s s"],
        y: Float[Tensor, "b 3 s s"],
        place: Int64[Tensor, " b"],
    ) -> dict[str, Tensor]:
        """Return eq. (7)'s weighted terms for outputs ``o`` of the training images ``place``."""
        o = o.float()
        features = (None, None)
        if self.perceptual is not None:
            features = (self.perceptual(o), self.perceptual.of(place, y))
        return joint_terms(o, y, *features, lambda_p=self.lambda_p, lambda_s=self.lambda_s)


@torch.no_grad()
def validate(
    net: nn.Module, output: Callable[[Any], Tensor], pairs: Pairs, joint: Joint
) -> dict[str, float]:
    """Return val_loss, L_j of eq. (7) on the images held out, and its terms val_l2, val_p, val_s.

    ``net`` is in inference mode meanwhile; ``output(net(maps))`` is the image that is judged.
    """
    net.eval()
    sums: dict[str, float] = {}
    for part in np.array_split(pairs.val, -(-len(pairs.val) // VALIDATE_AT_ONCE)):
        maps, y, place = pairs.at(part)
        for name, term in joint.terms(output(net(maps)), y, place).items():
            sums[name] = sums.get(name, 0.0) + float(term) * len(part)
    net.train()
    terms = {f"val_{name}": value / len(pairs.val) for name, value in sums.items()}
    return {"val_loss": sum(terms.values()), **terms}


def annotate(history: dict[str, list[dict]], *, batch_size: int, steps_per_epoch: int) -> None:
    """Add to a history's entries the images seen and the shares of L_j's terms, in place."""
    for entry in [*history["log"], *history["epochs"]]:
        entry["images"] = entry["step"] * batch_size
        entry["epoch"] = entry["step"] / steps_per_epoch
    for entry in history["log"]:
        terms = {name: entry[name] for name in ("l2", "p", "s") if name in entry}
        whole = sum(terms.values())
        for name, value in terms.items():
            entry[f"share_{name}"] = value / whole if whole else 0.0
