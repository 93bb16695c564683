"""Where this replication departs from the paper and its released code, and why.

What holds in every profile is listed here; what a profile makes smaller is computed from its
parameters and data (:func:`of_parameters`, :func:`of_scale`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

Row = tuple[str, str, str]
# (the paper or its code, here, why)
ALWAYS: tuple[Row, ...] = (
    (
        "Figs. 3 and 4 print no number, Sec. III-D runs nothing",
        "every bar, distance and statement measured, with intervals and seeds",
        "a bar's height cannot be compared, a statement cannot be checked",
    ),
    (
        "one run each, no intervals",
        "several seeds where the profile has them; identities are resampled, not images",
        "an attribute belongs to a person: images of one person are not independent",
    ),
    (
        "weights of the losses stand in the README only, the scripts' defaults differ; no command "
        "for fr",
        "the README's (pixel 1; features 1; with the adversary 0.06); fr as an autoencoder",
        "the README goes with the figures",
    ),
    (
        "fr_adv: half as many updates of G as pixel and fr",
        "as released, and pixel and fr also after equally many (claim C4b)",
        "a longer training may be the difference",
    ),
    (
        "attributes: the epoch that is best on test; autoencoders: the best on test batches",
        "the last epoch is the number; the epoch that is best on test stands beside it",
        "a choice on test data flatters",
    ),
    (
        "the released attribute script weights the classes of several outputs at once",
        "the intended loss: w = N / (K N_c), averaged over the batch",
        "TensorFlow 2.2 refuses such weights; as published it very likely does not run",
    ),
    (
        "the threat models' training and test images are of one set and its cameras",
        "the same, and beside it heads trained on the other local set (cross)",
        "only the black box sees another domain",
    ),
    (
        "images of which not exactly one colour of each garment is annotated are dropped from all "
        "attributes; not in the paper",
        "the same; what was dropped is counted",
        "as released",
    ),
    (
        "classes that occur in test count, also those of one or two persons",
        "the same, and beside it classes of at least five test identities",
        "one person must not be a quarter of an accuracy",
    ),
    (
        "“random guess”",
        "1 / K, K the classes that occur in test, and the band of identities with permuted labels",
        "with few persons chance is a band, not a line",
    ),
    (
        "Fig. 4: whether a distance is of the image shown or a mean is not stated",
        "the mean over test, and each image's own under it",
        "the code prints the mean",
    ),
    (
        "reconstructions are written as JPEG, truncated to 8 bits, before they are compared",
        "compared as they are; what JPEG costs the original is a floor",
        "the distance should be the network's",
    ),
    (
        "which features FastReID gives out",
        "after the batch norm of the neck, for all three",
        "its code does so, whatever NECK_FEAT says",
    ),
    (
        "FastReID's non-local layer has an inner width of 1",
        "1 unless said below",
        "as in v1.0.0, which the paper used; half of the channels were meant",
    ),
    (
        "“one-time pad”, a key per request; the code has one key for all",
        "a key per request from HKDF-SHA256 and ChaCha20; how much one key encrypts is varied",
        "numpy's default_rng(0) is neither secret nor able to draw all 32! keys",
    ),
    (
        "the code permutes float by float in Python; TensorFlow's copies to the host",
        "nine delta swaps on integers, one kernel for any key; ciphertexts are integers",
        "as floats up to several per cent of them would be NaN, which a cast changes",
    ),
    (
        "the code compares after dropping NaNs",
        "bits are compared as integers",
        "a lost NaN is a lost bit",
    ),
    (
        "start and batch norm of the networks",
        "as Keras: Glorot uniform, ε 10⁻³, momentum 0.99, Adam's ε 10⁻⁷",
        "the code's defaults",
    ),
    (
        "“high-resolution” images",
        "the size is stated with every figure",
        "Market-1501's are 128 × 64 pixels, enlarged to 384 × 128",
    ),
    (
        "an attack on a real cipher must have a cosine of 0",
        "that on AES-GCM is compared with that on a key stream",
        "the attack answers with likely features, which resemble the true ones a little",
    ),
    (
        "claims whose interval “contains 0”",
        "must lie inside a margin to be supported, ours",
        "a wide interval contains 0, too, and says nothing",
    ),
)
TIME = "the time of this profile"
# (stage, parameter, its value, row): only where a profile's parameter has this value
BY_PARAMETER: tuple[tuple[str, str, object, Row], ...] = (
    (
        "train_reid",
        "precision",
        "bf16-mixed",
        ("mixed 16-bit floats (BoT, AGW)", "bfloat16 in all three", "faster on a GPU"),
    ),
    (
        "reconstruct",
        "precision",
        "bf16-mixed",
        ("32-bit floats", "convolutions of G and D in bfloat16", "faster on a GPU"),
    ),
    (
        "reconstruct",
        "phi",
        "hed",
        (
            "φ of the feature loss: ResNet50 with ImageNet weights",
            "VGG16 refined for contours (HED)",
            "weights that need not be downloaded",
        ),
    ),
    (
        "reconstruct",
        "w_adv",
        "auto",
        (
            "weight 0.06 of the adversary",
            "by the ratio of gradients in the first updates",
            "0.06 is tuned to the scale of another φ",
        ),
    ),
    (
        "reconstruct",
        "d_fake_bn",
        "train",
        ("D sees images of G in inference mode", "of G in training mode", "asks what it changes"),
    ),
    (
        "evaluate",
        "jpeg",
        True,
        ("JPEG between G and the black box", "the same", "as released"),
    ),
)
# Of the released code: (stage, parameter) -> what it is, its value
PRINTED: dict[tuple[str, str], tuple[str, object]] = {
    ("attributes", "epochs"): ("epochs of the attribute heads", 100),
    ("attributes", "batch_size"): ("batch of the attribute heads", 128),
    ("attributes", "lr"): ("learning rate of the attribute heads", 5e-5),
    ("attributes", "lr_late"): ("the same in the second half", 1e-5),
    ("reconstruct", "batch_size"): ("batch of the reconstructions", 64),
    ("reconstruct", "lr"): ("learning rate of G and D", 1e-4),
    ("reconstruct", "steps"): ("batches of a reconstruction", 60_000),
    ("train_reid", "epochs"): ("epochs of BoT and AGW, of SBS half as many", 120),
}


def of_scale(
    meta: Mapping[str, Any] | None,
    networks: Mapping[str, Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    setting: Mapping[str, Any],
) -> list[Row]:
    """Return the departures that the profile's data and networks make.

    Parameters
    ----------
    meta : ``prepare/meta.json``.
    networks : model -> ``train_reid/<model>/meta.json``.
    cells : of table.json.
    setting : what the paper worked on, of paper.yaml.
    """
    rows: list[Row] = []
    if meta is None:
        return rows
    theirs = f"black boxes trained on {setting['proprietary']}, threat models on "
    theirs += " and ".join(setting["locals"])
    ours = f"{_set(meta, meta['proprietary'])}; {'; '.join(_set(meta, s) for s in meta['locals'])}"
    same = meta["proprietary"] == setting["proprietary"] and list(meta["locals"]) == list(
        setting["locals"]
    )
    if not same:
        rows.append((theirs, ours, "no result needs images of people"))
    size = (meta["height"], meta["width"])
    if size != (setting["height"], setting["width"]):
        printed = f"{setting['height']} × {setting['width']} pixels"
        rows.append((f"reconstructions of {printed}", f"{size[0]} × {size[1]} pixels", TIME))
    found = sorted({(str(of.get("net")), of.get("dims")) for of in networks.values()}, key=str)
    if found and found != [(setting["net"], setting["dims"])]:
        ours = "; ".join(f"{net}, {dims} dimensions" for net, dims in found)
        row = (f"{setting['net']}, {setting['dims']} dimensions", ours, TIME)
        rows.append(row)
    lost = [str(cell["name"]) for cell in cells if not cell["recipes"]]
    if lost:
        rows.append(
            (
                "images reconstructed from every black box and set",
                f"not from {', '.join(lost)}",
                TIME,
            )
        )
    return rows


def _set(meta: Mapping[str, Any], name: str) -> str:
    of = meta["sets"][name]
    return f"{name}, {of['n_train']:,} images to train, {of['n_test']:,} to test"


def of_parameters(settings: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the departures that hold with these parameters (stage -> name -> value)."""
    rows = [
        row
        for stage, name, value, row in BY_PARAMETER
        if settings.get(stage, {}).get(name, NotImplemented) == value
    ]
    for (stage, name), (what, theirs) in PRINTED.items():
        ours = settings.get(stage, {}).get(name, theirs)
        if ours != theirs:
            rows.append((f"{what}: {_words(theirs)}", _words(ours), TIME))
    return rows


def _words(value: object) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
    )
