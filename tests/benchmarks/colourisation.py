"""Seconds of one GAN training step at the embedded profile's size, ours against the plain way.

``make bench`` runs it and writes reports/bench/colourisation.json.
The two ways alternate in one process; quote the median of the ratios: single times are noise on a
shared machine. Plain: upsampling and a 4 x 4 convolution of the large map, Adam by the tensor,
channels first, Lab computed for every batch. Both make the same numbers up to rounding.
"""

import platform
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import conv2d, interpolate, pad
from torch.optim import Adam

from stages.colourisation.colour import encode
from stages.colourisation.losses import loss_G, loss_G_adversarial
from stages.colourisation.networks import build
from stages.common.files import write_json
from stages.common.losses import adversarial_loss
from stages.common.networks.up_conv import UpConv
from stages.common.params import load_params

PAIRS, WARM_UP, STEPS = 7, 3, 15


class PlainUpConv(nn.Module):
    """The same layer as two operations on the large map."""

    def __init__(self, layer: UpConv):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        big = pad(interpolate(x, scale_factor=2, mode="nearest"), (1, 2, 1, 2))
        return conv2d(big, self.layer.weight, self.layer.bias)


def make_step(images, architecture, *, ours, lr):
    torch.manual_seed(0)
    G, D = build(size=images.shape[1], **architecture)
    if ours:
        for net in (G, D):
            net.to(memory_format=torch.channels_last)
        x, y = encode(images)
    else:
        for row in G.layers.values():
            for i, part in enumerate(row):
                if isinstance(part, UpConv):
                    row[i] = PlainUpConv(part)
    how = {"fused": True} if ours else {"foreach": False}
    opt_G, opt_D = (Adam(net.parameters(), lr, betas=(0.5, 0.999), **how) for net in (G, D))

    def update(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def step():
        a, b = (x, y) if ours else encode(images)
        fake = G(a)
        update(opt_D, sum(adversarial_loss(k, True) for k in D(a, b)))
        update(opt_D, sum(adversarial_loss(k, False) for k in D(a, fake.detach())))
        D.requires_grad_(False)
        terms = loss_G_adversarial(D(a, fake), "lsgan")
        D.requires_grad_(True)
        update(opt_G, loss_G(terms, fake, b, 100, "sum"))

    return step


def seconds(step):
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS


def main():
    torch.set_num_threads(1)
    params = load_params()
    scale = params["profiles"]["embedded"]["colourisation"]
    train = params["colourisation"]["train"] | scale["train"]
    size, batch = scale["prepare"]["size"], train["batch_size"]
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    results = {}
    for name in ("bn", "bn_sn", "bn_sn_md"):
        settings = train | params["colourisation"]["variants"][name]
        keys = ("widths_g", "widths_d", "norm", "sn", "scales", "rf", "up", "bn_momentum", "bn_eps")
        architecture = {key: settings[key] for key in keys}
        steps = {
            how: make_step(images, architecture, ours=how == "ours", lr=settings["lr"])
            for how in ("ours", "plain")
        }
        for step in steps.values():
            for _ in range(WARM_UP):
                step()
        pairs = [{how: seconds(step) for how, step in steps.items()} for _ in range(PAIRS)]
        ratios = [pair["plain"] / pair["ours"] for pair in pairs]
        results[name] = {
            "ours_ms_per_step": 1e3 * statistics.median(pair["ours"] for pair in pairs),
            "plain_ms_per_step": 1e3 * statistics.median(pair["plain"] for pair in pairs),
            "speedup_median": statistics.median(ratios),
            "speedup_range": [min(ratios), max(ratios)],
        }
        print(name, {k: v for k, v in results[name].items()}, flush=True)
    write_json(
        Path("reports/bench/colourisation.json"),
        {
            "what": f"one step at {size} px, batch {batch}, 1 CPU thread, {PAIRS} pairs",
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "variants": results,
        },
    )


if __name__ == "__main__":
    main()
