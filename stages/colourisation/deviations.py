"""Where this replication departs from the paper or from its released code, and why.

What holds in every profile is listed here; what a profile makes smaller is computed from its
parameters and data (:func:`of_parameters`, :func:`of_scale`).
"""

from collections.abc import Mapping

# (the paper or its code, here, why)
ALWAYS = (
    (
        "Eq. 4 and 5: logarithmic GAN losses",
        "least squares on a linear output of D",
        "the released code trains so, and Table I can only come from that code",
    ),
    (
        "λ, the weight of L1, is not given; Eq. 5 reads ‖Y − G(X, Y)‖₁",
        "λ = 100 on the mean |difference| of ab / 110",
        "the released code's; a sum instead of a mean would be 131,072 times larger",
    ),
    (
        "the adversarial terms of several discriminators are summed, so L1 weighs less",
        "kept, with the control bn_sn_lam33: one discriminator, λ / 3",
        "else several discriminators cannot be told from a weaker L1 term (claim X4)",
    ),
    (
        "instance normalisation in the text; the code's layer normalises over channels too",
        "in: as in the text; ln: as in the code; both stand beside the paper's row IN",
        "the printed numbers come from one of them, the text does not say which",
    ),
    (
        "decoder of 4 × 4 convolutions with stride 2",
        "nearest upsampling, then a 4 × 4 convolution with stride 1",
        "the released code does so",
    ),
    (
        "spectral norm argued for in D (Sec. III-C), put on all blocks (Sec. IV-B)",
        "on every convolution of G and D; bn_sn_unnormed: only where no norm follows",
        "the released code's choice; the control asks whether the rest matters (claim X3)",
    ),
    (
        "Fig. 2: six encoder blocks, no norm in the last block of D",
        "seven at the paper's size, batch norm there",
        "the text (seven) and the code (batch norm) agree against the figure",
    ),
    ("a noise input Z in Eq. 4 and 5", "none, no dropout", "the released code has none"),
    (
        "the K discriminators tick one Adam step counter, 2K times a training step",
        "each discriminator's two updates count as two",
        "the counter only changes the bias correction of the first steps",
    ),
    (
        "L_perc squares an L1 norm (Eq. 7)",
        "mean |difference| of feature maps, averaged over five layers",
        "only this reading has the size of Table I's numbers",
    ),
    (
        "mean PSNR over images without a cap",
        "each image capped at 60 dB; median and pooled PSNR are in the results",
        "images that are almost grey reach 60 to 95 dB and inflate the mean",
    ),
    (
        "the checkpoint behind Table I is not stated",
        "the last epoch; the epoch of the best validation L1 is in the results",
        "nothing is chosen on test images",
    ),
    (
        "one run a row, no intervals",
        "several seeds where the profile has them, 95 % bootstrap intervals over test images",
        "differences in Table I are as small as 0.1 %",
    ),
    (
        "images shrunk to their nearest pixels (the loader's default)",
        "by area interpolation",
        "nearest pixels alias: fine colour patterns appear that are not in the image",
    ),
    (
        "rows of Fig. 5 chosen by hand",
        "the first test image of each class",
        "a rule cannot flatter",
    ),
)
# (parameter, its value, row): only where a profile's parameter has this value
BY_PARAMETER = (
    (
        "rf",
        "code94",
        (
            "D sees 70 × 70 pixels in the text, four stride-2 blocks (94 pixels) in the code",
            "stride-2 blocks as in the code",
            "Table I can only come from the code",
        ),
    ),
    (
        "rf",
        "pix2pix70",
        (
            "D has stride-2 blocks only (code), or sees 70 × 70 pixels (text)",
            "the last block has stride 1, as in the 70 × 70 network of the text",
            "D then sees about the share of these smaller images that the paper's sees of its own",
        ),
    ),
    (
        "perc_backbone",
        "efflite0",
        (
            "L_perc on VGG19 with weights that must be downloaded",
            "EfficientNet-Lite0 with ImageNet weights from a package",
            "runs offline; only the order of the variants can be compared, not the values",
        ),
    ),
    (
        "precision",
        "bf16-mixed",
        (
            "32-bit floats",
            "convolutions in bfloat16; losses and spectral norm in 32 bit",
            "faster on a GPU",
        ),
    ),
    (
        "fake_mode",
        "train",
        (
            "D is shown images that G made in inference mode",
            "in training mode; the same images serve D and G",
            "saves a pass of G, and G is judged on what it is trained with",
        ),
    ),
)
PAPER_TRAIN, PAPER_TEST, PAPER_SIZE_PX = 50_000, 10_000, 256  # Sec. IV-A


def of_scale(meta: Mapping | None) -> list[tuple[str, str, str]]:
    """Return the departures that the profile's data make, from ``prepare/meta.json``."""
    if meta is None:
        return []
    rows = [
        (
            f"ImageNet, {PAPER_TRAIN:,} images to train and {PAPER_TEST:,} to test",
            f"{meta['dataset']}, {meta['n_train']:,} to train and {meta['n_test']:,} to test",
            f"{meta['n_val']:,} of them are kept for validation"
            if meta["dataset"] == "imagenet"
            else "open data that can be shipped or mounted, and the time of this profile",
        ),
        (
            f"{PAPER_SIZE_PX} × {PAPER_SIZE_PX} pixels, nets of that depth",
            f"{meta['size']} × {meta['size']} pixels, nets of fewer and narrower layers (Fig. 2)",
            "the time of this profile",
        ),
        (
            "trained on ImageNet's validation set, tested on its training set",
            f"the train and test splits of {meta['dataset']}; validation images taken from train",
            "the set's own splits; no image, and no emoji, is in two of them",
        ),
    ]
    return [
        row
        for row, differs in zip(
            rows,
            (
                (meta["n_train"], meta["n_test"]) != (PAPER_TRAIN, PAPER_TEST),
                meta["size"] != PAPER_SIZE_PX,
                meta["dataset"] != "imagenet",
            ),
            strict=True,
        )
        if differs
    ]


CODES_VALUES = {"epochs": 200, "batch_size": 16, "bn_momentum": 0.01}  # of the released code


def of_parameters(params: Mapping) -> list[tuple[str, str, str]]:
    """Return the departures that hold with these parameters (name -> value)."""
    rows = [row for name, value, row in BY_PARAMETER if params.get(name) == value]
    for name, theirs in CODES_VALUES.items():
        if name in params and params[name] != theirs:
            why = (
                "running statistics must settle within this profile's few steps"
                if name == "bn_momentum"
                else "the time of this profile"
            )
            rows.append((f"{name} {theirs} (the released code)", f"{params[name]}", why))
    return rows
