"""Whether ShuffleBits runs inside one compiled graph and copies nothing to the host (Sec. II-B)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from stages.deep_features.shufflebits.arrays import encrypt_numpy
from stages.deep_features.shufflebits.keys import BitKey
from stages.deep_features.shufflebits.module import ShuffleBits

BATCH, SIDES = 64, (256, 2048)  # vectors; in, out
COPY = "DtoH"  # in the profiler's names of copies to the host
NO_KERNELS = ("Memcpy", "Memset")


class Tail(nn.Module):
    """A network whose features go through the cipher: x -> (features, ciphertext)."""

    def __init__(self, network: nn.Module, key: BitKey):
        super().__init__()
        self.network = network
        self.cipher = ShuffleBits(key)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(x)
        return features, self.cipher(features)


def linear(device: torch.device) -> tuple[str, nn.Module, Tensor]:
    """Return a linear layer, as what else would be looked at if a black box cannot be compiled."""
    torch.manual_seed(0)
    layer = nn.Linear(*SIDES).requires_grad_(False).to(device)
    return "linear layer", layer, torch.randn(BATCH, SIDES[0], device=device)


def watch(call: Callable[[], Any], device: torch.device) -> tuple[int, int]:
    """Return how many kernels ``call`` ran on a GPU, and its copies to the host."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as seen:
        call()
        torch.cuda.synchronize(device)
    names = [e.name for e in seen.events() or () if e.device_type.name == "CUDA"]
    kernels = sum(not name.startswith(NO_KERNELS) for name in names)
    return kernels, sum(COPY in name for name in names)


def look(
    networks: list[tuple[str, nn.Module, Tensor]],
    key: BitKey,
    device: torch.device,
    *,
    backend: str = "inductor",
) -> dict[str, Any] | None:
    """Compile a network that ends in the cipher, and watch it run.

    Parameters
    ----------
    networks : name, network and input of what to look at: the first that compiles as one graph. If
        none does for what it computes, the last one is looked at as it is.

    Returns
    -------
    {"device": its name, "network": its name, "fullgraph": whether one graph holds all,
    "copies_to_host": in a run until its ciphertext is ready, "wrong_bits": of that ciphertext
    against NumPy's of the features that came with it}; None, and a line says why, if nothing can be
    compiled here or the profiler does not see what runs.
    """
    from torch._dynamo.exc import Unsupported  # seconds, and only needed here

    why, name, call, x = "none was given", "network", None, torch.empty(0)
    for looked_at, network, given in networks:
        name, x = looked_at, given
        tail = Tail(network, key).to(device).eval()
        torch._dynamo.reset()
        call = torch.compile(tail, fullgraph=True, backend=backend)
        why = ""
        try:
            with torch.no_grad():
                call(x)
            break
        except Unsupported:
            call = tail
        except Exception as error:  # whatever a compiler, its back end or the driver says
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if call is None or why:
        return _nothing(f"a compiler failed on the {name} ({why})")
    with torch.no_grad():
        kernels, copies = watch(lambda: call(x), device)
        _, control = watch(lambda: call(x)[1].cpu(), device)
        features, cipher = call(x)
    if not kernels or not control:
        return _nothing(
            f"the profiler saw {kernels} kernels, and {control} copies where one is made"
        )
    expected = encrypt_numpy(features.cpu().numpy(), key)
    wrong = cipher.cpu().numpy().view(np.uint32) ^ expected
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "network": name,
        "fullgraph": not isinstance(call, Tail),
        "copies_to_host": copies,
        "wrong_bits": int(np.bitwise_count(wrong).sum()),
    }


def _nothing(why: str) -> None:
    print(f"  not shown that the cipher stays on the device: {why}", flush=True)
