"""Where tensors are computed, and that 32 bits mean 32 bits there."""

import torch


def full_precision() -> None:
    """Compute what is declared 32-bit in 32 bits on a GPU too, not in TF32, and repeatably."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def evaluation_device() -> torch.device:
    """Return the GPU if there is one, else the CPU, in full precision."""
    full_precision()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
