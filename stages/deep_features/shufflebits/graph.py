"""Whether ShuffleBits runs inside one compiled graph and copies nothing to the host (Sec. II-B)."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stages.deep_features.shufflebits.arrays import encrypt_numpy
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import ShuffleBits

BATCH, SIDES = 64, (256, 2048)  # vectors; in, out


def look(key: BitKey, device: torch.device, *, backend: str = "inductor") -> dict[str, Any]:
    """Compile a layer that ends in the cipher, and watch it run.

    Returns
    -------
    {"device": its name, "fullgraph": whether one graph holds all, "copies_to_host": in a run until
    its ciphertext is ready, "wrong_bits": of that ciphertext against NumPy's}
    """
    from torch._dynamo.exc import Unsupported  # seconds, and only needed here

    torch.manual_seed(0)
    layer = nn.Linear(*SIDES).to(device).requires_grad_(False)
    model = nn.Sequential(layer, ShuffleBits(key)).to(device)
    x = torch.randn(BATCH, SIDES[0], device=device)
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else device.type
    found: dict[str, Any] = {"device": name, "fullgraph": True}
    torch._dynamo.reset()
    try:
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        compiled(x)
    except Unsupported:
        found["fullgraph"], compiled = False, model
        compiled(x)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as seen:
        cipher = compiled(x)
        if cuda:
            torch.cuda.synchronize(device)
    found["copies_to_host"] = sum(e.count for e in seen.key_averages() if "DtoH" in e.key)
    expected = encrypt_numpy(layer(x).cpu().numpy(), key)
    wrong = cipher.cpu().numpy().view(np.uint32) ^ expected
    found["wrong_bits"] = int(np.bitwise_count(wrong).sum())
    return found
