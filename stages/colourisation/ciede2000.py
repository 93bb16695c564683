"""CIEDE2000 colour difference on tensors, so that it runs where the images are.

Sharma, Wu & Dalal, "The CIEDE2000 color-difference formula: implementation notes, supplementary
test data, and mathematical observations", Color Research & Application 2005; equation numbers
are theirs. k_L = k_C = k_H = 1.
"""

import torch
from jaxtyping import Float
from torch import Tensor, cos, deg2rad, exp, hypot, sin, sqrt

G_POWER = 25.0**7


def ciede2000(
    lab1: Float[Tensor, "n 3 h w"], lab2: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n h w"]:
    """Return the difference of each pair of CIELAB pixels; about 1 is just noticeable."""
    L1, a1, b1 = lab1.double().unbind(1)
    L2, a2, b2 = lab2.double().unbind(1)
    C_mean = (hypot(a1, b1) + hypot(a2, b2)) / 2  # (2), (3)
    G = (1 - sqrt(C_mean**7 / (C_mean**7 + G_POWER))) / 2  # (4)
    a1, a2 = (1 + G) * a1, (1 + G) * a2  # (5)
    C1, C2 = hypot(a1, b1), hypot(a2, b2)  # (6)
    h1, h2 = _hue(a1, b1), _hue(a2, b2)  # (7)
    grey = C1 * C2 == 0
    dh = (h2 - h1 + 180) % 360 - 180  # (10), in [-180, 180)
    dh = torch.where((h2 - h1) == 180, 180.0, dh).masked_fill(grey, 0)
    dL, dC = L2 - L1, C2 - C1  # (8), (9)
    dH = 2 * sqrt(C1 * C2) * sin(deg2rad(dh / 2))  # (11)
    L, C = (L1 + L2) / 2, (C1 + C2) / 2  # (12), (13)
    far = (h1 - h2).abs() > 180
    turn = torch.where(h1 + h2 < 360, 360.0, -360.0) * far
    h = torch.where(grey, h1 + h2, (h1 + h2 + turn) / 2)  # (14)
    T = (
        1
        - 0.17 * cos(deg2rad(h - 30))
        + 0.24 * cos(deg2rad(2 * h))
        + 0.32 * cos(deg2rad(3 * h + 6))
        - 0.20 * cos(deg2rad(4 * h - 63))
    )  # (15)
    turn = 30 * exp(-(((h - 275) / 25) ** 2))  # (16)
    R_C = 2 * sqrt(C**7 / (C**7 + G_POWER))  # (17)
    S_L = 1 + 0.015 * (L - 50) ** 2 / sqrt(20 + (L - 50) ** 2)  # (18)
    S_C, S_H = 1 + 0.045 * C, 1 + 0.015 * C * T  # (19), (20)
    R_T = -sin(deg2rad(2 * turn)) * R_C  # (21)
    l, c, d = dL / S_L, dC / S_C, dH / S_H  # noqa: E741
    return sqrt((l**2 + c**2 + d**2 + R_T * c * d).clamp(min=0)).float()  # (22)


def _hue(a: Tensor, b: Tensor) -> Tensor:
    """Return the hue angle in [0, 360) degrees, 0 for grey."""
    return torch.rad2deg(torch.atan2(b, a)) % 360
