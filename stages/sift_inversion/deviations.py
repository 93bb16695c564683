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
        "no number; every figure is one to eight pictures",
        "every figure also as measures of all test images; all of these are ours",
        "a picture chosen by hand decides nothing",
    ),
    (
        "the images of the figures were chosen",
        "the first test images of different persons or classes, by a rule",
        "a rule cannot flatter",
    ),
    (
        "one run each, no intervals",
        "several seeds where the profile has them, 95 % bootstrap intervals over test images",
        "a difference in one picture may be luck",
    ),
    (
        "code released later",
        "none of it is used",
        "it is of another, later model, with another input and another loss",
    ),
    (
        "SIFT's settings are not stated",
        "OpenCV's defaults, on the grey image as printed: the mean of gamma-corrected channels",
        "the usual ones; the formula is applied to values that have a gamma already",
    ),
    (
        "a descriptor is said to describe the 4 × 4 pixels of its cell",
        "taken as wording only",
        "SIFT looks about 10 σ far, often over half of the image",
    ),
    (
        "σ, θ and the place in the cell are introduced, then F_d has 128 channels",
        "128 channels for R; the baseline gets all of them, its control B5_128 none",
        "the text of Sec. III-A; what it costs is measured (claim C1)",
    ),
    (
        "of several keypoints in a cell others move to an adjacent empty one; order not stated",
        "the strongest response stays; then the others choose, strongest first, of cells left free",
        "the map must not depend on the order in which keypoints are listed",
    ),
    (
        "range of descriptors and images is not stated",
        "descriptors / 512, empty cells 0; images in [−1, 1]",
        "OpenCV's descriptors have a length of about 512",
    ),
    (
        "the numbers of kernels in Fig. 3 cannot be read",
        "widths of our own, halved and doubled to and from 4 × 4",
        "the numbers of layers that can be read allow no other bottleneck",
    ),
    (
        "the halves of R are averaged; not stated where",
        "each has its tanh, then the mean",
        "the printed range of an image holds for each half",
    ),
    (
        "φ: “the 3-th layer” of VGG16, on its own scale",
        "relu3_3 unless said below, divided by its root mean square over training images",
        "the layer of the DeblurGAN port whose recipe the paper follows; scales differ by weights",
    ),
    (
        "normalisation of the Gram matrix (eq. 6) is not stated",
        "a sum over positions, referred to a grid of 64 × 64; mean |difference| over its entries",
        "with the usual one the printed weight 10⁻⁴ would make the term a millionth of the loss",
    ),
    (
        "eq. 8 is one loss “of G and D”",
        "the usual two, non-saturating for G; its weights are 100 times those of eq. 7",
        "as eq. 1",
    ),
    (
        "normalisation, skip and start of G are not stated",
        "instance norm, clamp(x + h(x)), h = 0 at the start",
        "DeblurGAN's generator; the second stage then starts from R's images",
    ),
    (
        "what D is conditioned on, and its size",
        "R's image beside the other, without a gradient to R; PatchGAN",
        "pix2pix conditions on the input of G, which is R's image here",
    ),
    (
        "five steps of D to one of G; on which images is not stated",
        "all on one minibatch",
        "as in DeblurGAN's codes",
    ),
    (
        "“until convergence”, then 200 epochs",
        "a number of images seen in each stage; nothing is chosen by a validation loss",
        "the same length for all runs that are compared",
    ),
    (
        "the baseline [5]: whether it was trained on faces is not stated",
        "its network and loss, trained on the same images, as many of them as R",
        "one trained on other images would lose for that reason alone",
    ),
    (
        "the removed region of Fig. 7, and what happens to descriptors that reach into it",
        "boxes of several sizes; removed by the keypoint (centre), or by what it looks at (support)"
        " where a profile has that",
        "by the keypoint alone, the region is still seen by its neighbours",
    ),
    (
        "faces against hair and background",
        "an ellipse in the middle against the rest, the same in every image",
        "no outlines of faces come with the images",
    ),
    (
        "no control for the number of networks or of layers",
        "R44_J: two networks on one scale; R42_N: G without an adversary",
        "an average of two networks, or a larger one, may be the whole gain (claims C3, C4)",
    ),
    (
        "no metric",
        "perceptual distance and retrieval by EfficientNet-Lite0, not by φ",
        "a loss would win the metric that it minimises",
    ),
)
TIME = "the time of this profile"
NO_DOWNLOAD = "weights that need not be downloaded"
# (stage, parameter, its value, row): only where a profile's parameter has this value
BY_PARAMETER: tuple[tuple[str, str, object, Row], ...] = (
    (
        "train",
        "phi",
        "hed",
        ("φ has ImageNet weights", "VGG16 refined for contours (HED)", NO_DOWNLOAD),
    ),
    ("train", "phi", "random", ("φ has ImageNet weights", "random weights", NO_DOWNLOAD)),
    (
        "train",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "convolutions of the first stage in bfloat16", "faster on a GPU"),
    ),
    (
        "refine",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "convolutions of the second stage in bfloat16", "faster on a GPU"),
    ),
    (
        "train",
        "desc_norm",
        "pm1",
        (
            "range of descriptors is not stated",
            "−1 to 1, empty cells 0",
            "the authors' later code; an empty cell is then a descriptor of middling values",
        ),
    ),
    (
        "refine",
        "adversarial",
        "lsgan",
        ("eq. 1: cross entropy", "least squares", "steadier"),
    ),
    (
        "refine",
        "conditional",
        False,
        ("a conditional D", "D sees one image only", "asks what the condition brings"),
    ),
)
# Printed, or the value of what the paper follows: (stage, parameter) -> what it is, its value
PRINTED: dict[tuple[str, str], tuple[str, object]] = {
    ("train", "width"): ("widths of R, times ours at 256 pixels", 1),
    ("train", "channels"): ("channels of F_d", 128),
    ("train", "phi_layer"): ("φ: “the 3-th layer” of VGG16, relu3_3", "relu3_3"),
    ("train", "lambda_p"): ("λ_p (eq. 7)", 1),
    ("train", "lambda_s"): ("λ_s (eq. 7)", 1e-4),
    ("train", "lr"): ("learning rate of R", 1e-4),
    ("train", "lr_end"): ("learning rate of R at its end, of that at its begin", 1),
    ("train", "l2_first"): ("share of R's images that are seen with eq. 4 alone", 0),
    ("train", "batch_size"): ("batch of R", 8),
    ("train", "images"): ("images seen by R (100 epochs)", 800_000),
    ("refine", "n_critic"): ("steps of D to one of G", 5),
    ("refine", "label_smooth"): ("D's label of real images", 1),
    ("refine", "lambda_joint"): ("weights of eq. 8, times those of eq. 7", 100),
    ("refine", "lambda_R"): ("weight of R's own loss in the second stage", 0),
    ("refine", "ngf"): ("width of G (DeblurGAN's)", 64),
    ("refine", "blocks"): ("residual blocks of G", 9),
    ("refine", "ndf"): ("width of D (pix2pix's)", 64),
    ("refine", "d_layers"): ("layers of stride 2 in D (pix2pix's)", 3),
    ("refine", "lr"): ("learning rate of the second stage", 1e-4),
    ("refine", "batch_size"): ("batch of the second stage", 8),
    ("refine", "images"): ("images seen in the second stage (100 epochs)", 800_000),
}


def of_scale(meta: Mapping | None, setting: Mapping[str, Any]) -> list[Row]:
    """Return the departures that the profile's data make.

    Parameters
    ----------
    meta : ``prepare/meta.json``.
    setting : what the paper worked on, of paper.yaml.
    """
    if meta is None:
        return []
    rows, sets = [], meta["sets"]
    if of := sets.get("faces"):
        theirs = tuple(setting[key] for key in ("faces", "n_train", "n_test", "size"))
        ours = (of["dataset"], of["n_train"], of["n_test"], meta["size"])
        if ours != theirs:
            rows.append((f"faces: {_set(*theirs)}", _set(*ours), _why(ours[0], theirs[0])))
    if of := sets.get("multi"):
        both = setting["multi_images"]
        same = of["dataset"] == setting["multi"] and of["n_train"] + of["n_test"] == both
        if not same or meta["size"] != setting["size"]:
            classes = len(of["classes"])
            ours = _set(of["dataset"], of["n_train"], of["n_test"], meta["size"])
            theirs = f"eight classes of {setting['multi']}, {both:,} images in all"
            rows.append(
                (
                    f"{theirs}, {setting['size']} pixels",
                    f"{classes} {'class' if classes == 1 else 'classes'}: {ours}",
                    _why(of["dataset"], setting["multi"]),
                )
            )
    return rows


def _set(name: str, train: int, test: int, side: int) -> str:
    return f"{name}, {train:,} to train and {test:,} to test, {side} pixels"


def _why(ours: str, theirs: str) -> str:
    return TIME if ours == theirs else f"open data that can be shipped or mounted, and {TIME}"


def of_parameters(settings: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the departures that hold with these parameters (stage -> name -> value)."""
    rows = [
        row
        for stage, name, value, row in BY_PARAMETER
        if settings.get(stage, {}).get(name, NotImplemented) == value
    ]
    found = (settings.get(stage, {}).get("phi_size") for stage in ("train", "refine"))
    sides = {int(side) for side in found if side}
    if sides:
        averaged = " or ".join(map(str, sorted(sides)))
        rows.append(("φ sees the whole image", f"averaged to {averaged} pixels a side", TIME))
    for (stage, name), (what, theirs) in PRINTED.items():
        ours = settings.get(stage, {}).get(name, theirs)
        if ours != theirs:
            rows.append((f"{what}: {_words(theirs)}", _words(ours), TIME))
    return rows


def _words(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}".replace("-", "−") if isinstance(value, float) else f"{value:,}"
