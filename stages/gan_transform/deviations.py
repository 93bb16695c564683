"""Where this replication departs from the paper, and why.

What holds in every profile is listed here; what a profile makes smaller is computed from its
parameters and data (:func:`of_parameters`, :func:`of_scale`).
"""

from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, str]
# (the paper, here, why)
ALWAYS: tuple[Row, ...] = (
    (
        "head of h_θ (VGG13) and its training are not stated",
        "batch norm, and one linear layer after the convolutions; SGD as for the classifiers",
        "the habit on images of 32 pixels",
    ),
    (
        "Eq. 3 prints the gradient at x, and no start; magnitude and step size have no value",
        "the gradient at x_p, a random start, clipped to [0, 1]; values: see the parameters",
        "projected gradient descent as Madry et al. describe it",
    ),
    (
        "the cross entropy alone guides eq. 3",
        "the margin of the logits where the softmax is saturated",
        "there the gradient of the cross entropy is exactly 0, and nothing would move",
    ),
    (
        "a CycleGAN, which needs no pairs",
        "batches of an image, its protected version, and their class",
        "eqs. 6 and 8 compare the two and use one class for both",
    ),
    (
        "eq. 7 divides by the number of pixels, eq. 9 does not",
        "proposed: both are means; proposed_sum: eq. 9 as printed",
        "the two readings give different schemes, so both are run (ablation)",
    ),
    (
        "γ1 = −1: perceptual terms are maximised without a bound",
        "kept, with a guard that caps them from the end of the first epoch in which they dominate "
        "or h_θ guesses on what G_AB makes; the curves say whether it did",
        "else training can leave the classification behind",
    ),
    (
        "φ: VGG16's “second ReLU”, on its own scale",
        "layer and weights as parameters, divided by their root mean square over plain images",
        "weights at hand differ in scale by a hundred, which γ1 would have to make good",
    ),
    (
        "adversarial loss and discriminators “as CycleGAN”",
        "least squares, PatchGAN, no pool of old images; gradients are clipped",
        "CycleGAN's defaults, but for the pool, which is not mentioned",
    ),
    (
        "type and determinism of h_p's output are not stated",
        "rounded to 8 bits before it leaves the client; batch norm with statistics taken anew",
        "an image that is sent has 8 bits, and must not depend on the rest of its batch",
    ),
    (
        "clients normalise and augment before h_p; attacks use no pre-processing",
        "h_p maps images in [0, 1]; normalisation is inside the networks",
        "h_p is then one function for training, use and attack",
    ),
    (
        "pixel-based encryption with colour shuffling as an option",
        "without it; pe_same_shuffle and pe_diff_shuffle have it",
        "the group's later code leaves it out",
    ),
    (
        "the classifier of block-wise encrypted images is not stated",
        "Tanaka's adaptation network before the same ResNet-18",
        "the other schemes are classified by ResNet-18",
    ),
    (
        "layers of the GAN attack are drawn in Figs. 3 and 4, without a table",
        "those of the group's later code; for Fig. 4b also with unshared weights (ga_local)",
        "a generator that is the same for all pixels cannot tell one key from many",
    ),
    (
        "the generator of the GAN attack differs by scheme",
        "the same in Table I; in the matrix each generator attacks every scheme",
        "else a scheme cannot be told from its generator",
    ),
    (
        "layers and loss of UWA are not stated; it is filed under ciphertext-only attacks",
        "a linear map of each pixel, mean (uwa_literal) or sum (uwa_strong) of squared errors; on "
        "all schemes, also by blocks (uwa_block)",
        "the reduction decides the result, and the attack needs pairs under one key",
    ),
    (
        "GAN attack on four schemes, UWA on two",
        "in addition attacks without training, inversion by pairs and by G_BA; images without "
        "content as floors, plain images and AES ciphers as controls",
        "a low SSIM says only that one attack failed, and a blank image does not have 0",
    ),
    (
        "SSIM has no further definition",
        "scikit-image's with a 7 × 7 window on 8-bit images; a Gaussian window and mean |SSIM| "
        "beside it",
        "the group's later code",
    ),
    (
        "the epoch that is reported is not stated",
        "the last one, of classifiers and attacks; the best on test images is in the results",
        "nothing is chosen on test images",
    ),
    (
        "one run a cell, no intervals",
        "several seeds where the profile has them, 95 % bootstrap intervals over test images",
        "differences in Table I are as small as 0.08 points",
    ),
)
TIME = "the time of this profile"
NO_DOWNLOAD = "weights that need not be downloaded"
# (stage, parameter, its value, row): only where a profile's parameter has this value
BY_PARAMETER: tuple[tuple[str, str, object, Row], ...] = (
    (
        "transform",
        "phi_layer",
        "relu1_2",
        (
            "φ: “the second ReLU” of VGG16",
            "relu1_2, read literally",
            "the group's later code calls relu2_2 so",
        ),
    ),
    (
        "transform",
        "phi",
        "hed",
        ("φ has ImageNet weights", "VGG16 refined for contours (HED)", NO_DOWNLOAD),
    ),
    (
        "transform",
        "phi",
        "htheta",
        ("φ has ImageNet weights", "the first layers of h_θ itself", NO_DOWNLOAD),
    ),
    (
        "transform",
        "phi",
        "random",
        ("φ has ImageNet weights", "random weights", NO_DOWNLOAD),
    ),
    (
        "classify",
        "schedule",
        "one_cycle",
        (
            "learning rate divided by 5 after 60, 120 and 160 of 200 epochs",
            "a linear rise and fall over all steps",
            "few epochs are used better",
        ),
    ),
    (
        "prepare",
        "attack_from",
        "test",
        (
            "attacks train and are tested on the two splits of a set of their own",
            "on two disjoint parts of the test split",
            "no image of the attacker is one that h_p was trained on",
        ),
    ),
    (
        "transform",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "the CycleGAN's convolutions in bfloat16", "faster on a GPU"),
    ),
    (
        "classify",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "the classifiers' convolutions in bfloat16", "faster on a GPU"),
    ),
    (
        "attack",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "the attacks' convolutions in bfloat16", "faster on a GPU"),
    ),
)
# Printed in Secs. III and IV, or the width of the network that is named there:
# (stage, parameter) -> what it is, its value
PRINTED: dict[tuple[str, str], tuple[str, object]] = {
    ("train_target", "target_width"): ("width of h_θ", 64),
    ("perturb", "steps"): ("steps of eq. 3", 50),
    ("perturb", "n"): ("training images in P", None),
    ("transform", "unet_widths"): ("widths of every U-Net", [64, 128, 256, 512, 1024]),
    ("transform", "ndf"): ("width of F_A and F_B", 64),
    ("transform", "epochs"): ("epochs of the CycleGAN", 5000),
    ("transform", "lambda_adv"): ("λ", 0.4),
    ("transform", "gamma1"): ("γ1", -1),
    ("transform", "gamma2"): ("γ2", 0.4),
    ("transform", "gamma3"): ("γ3", 0.9),
    ("transform", "lr"): ("learning rate of the CycleGAN", 2e-4),
    ("classify", "width"): ("width of ResNet-18", 64),
    ("classify", "epochs"): ("epochs of the classifiers", 200),
    ("classify", "transfer_epochs"): ("epochs of the classifiers after transfer", 200),
    ("classify", "lr"): ("learning rate of the classifiers", 0.1),
    ("attack", "ga_ndf"): ("width of the GAN attack's discriminator", 64),
    ("attack", "ga_width_divisor"): ("widths of the GAN attack's generators, divided by", 1),
    ("attack", "ga_batch_size"): ("batch of the GAN attack", 64),
    ("attack", "ga_iterations"): ("batches of the GAN attack (100 epochs)", 3900),
    ("attack", "ga_lr"): ("learning rate of the GAN attack", 2e-4),
    ("attack", "uwa_epochs"): ("epochs of UWA", 70),
    ("attack", "uwa_batch_size"): ("batch of UWA", 128),
    ("attack", "uwa_lr"): ("learning rate of UWA", 0.1),
}
# Sec. IV-A: what the data are for, their title, their name here, their numbers and side;
# then the keys of prepare/meta.json that ours are under
DATA: tuple[tuple[str, tuple, tuple[str, str, str, str]], ...] = (
    (
        "h_θ, P, h_p and the first classifier: CIFAR-10",
        ("cifar10", 50_000, 10_000, 32),
        ("dataset", "n_train", "n_test", "size"),
    ),
    (
        "classifier after transfer: CIFAR-100",
        ("cifar100", 50_000, 10_000, 32),
        ("transfer_dataset", "n_transfer_train", "n_transfer_test", "size"),
    ),
    (
        "attacks: STL-10",
        ("stl10", 5_000, 8_000, 96),
        ("attack_dataset", "n_attack_train", "n_attack_test", "attack_size"),
    ),
)


def of_scale(meta: Mapping | None) -> list[Row]:
    """Return the departures that the profile's data make, from ``prepare/meta.json``."""
    if meta is None:
        return []
    rows = []
    for title, theirs, keys in DATA:
        name, train, test, side = ours = tuple(meta[key] for key in keys)
        if ours == theirs:
            continue
        why = TIME if name == theirs[0] else f"open data that can be shipped or mounted, and {TIME}"
        rows.append(
            (
                f"{title}, {theirs[1]:,} to train and {theirs[2]:,} to test, {theirs[3]} pixels",
                f"{name}, {train:,} to train and {test:,} to test, {side} pixels",
                why,
            )
        )
    return rows


def of_parameters(settings: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the departures that hold with these parameters (stage -> name -> value)."""
    rows = [
        row
        for stage, name, value, row in BY_PARAMETER
        if settings.get(stage, {}).get(name) == value
    ]
    for (stage, name), (what, theirs) in PRINTED.items():
        ours = settings.get(stage, {}).get(name, theirs)
        if ours != theirs:
            rows.append((f"{what}: {_words(theirs)}", _words(ours), TIME))
    return rows


def _words(value: object) -> str:
    if value is None:
        return "all"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value))
    return f"{value:g}".replace("-", "−") if isinstance(value, float) else f"{value:,}"
