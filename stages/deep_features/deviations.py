"""Where this replication departs from the paper and its released code, and why.

What holds in every profile is listed here; what a profile makes smaller is computed from its
parameters and data (:func:`of_parameters`, :func:`of_scale`).
"""

from collections.abc import Container, Mapping, Sequence
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
        "the README's, 1 for pixels and for features; the adversary's 0.06 unless said below; fr "
        "as an autoencoder",
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
        "numpy's default_rng(0) gives one key of the 32!, which is no secret",
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
        "start of heads, G and D, small constants of batch norm and Adam",
        "as Keras: Glorot uniform, ε 10⁻³ and 10⁻⁷",
        "the code's defaults",
    ),
    (
        "“high-resolution” images",
        "the size is stated with every figure",
        "Market-1501's are 128 × 64 pixels, enlarged to 384 × 128",
    ),
    (
        "an attack on a real cipher must have a cosine of 0",
        "the centred cosine on AES-GCM must lie inside ±0.1, and that less that on a key stream",
        "features share a mean: any likely ones have a high cosine with the true ones",
    ),
    (
        "how well an attack does: its cosine",
        "judged by the centred cosine, less the mean of the adversary's own features; the plain "
        "one stands beside it",
        "the mean alone, without a ciphertext, already has a high cosine",
    ),
    (
        "claims whose interval “contains 0”",
        "must lie inside a margin to be supported, ours",
        "a wide interval contains 0, too, and says nothing",
    ),
)
TIME = "the time of this profile"
# (stage, parameter, its values, row): only where a profile's parameter has one of these values
BY_PARAMETER: tuple[tuple[str, str, Container[object], Row], ...] = (
    (
        "train_reid",
        "precision",
        ("bf16-mixed",),
        (
            "mixed 16-bit floats (BoT, AGW)",
            "bfloat16 in these two, 32 bits in SBS",
            "bfloat16 needs no scaling of the loss; FastReID trains SBS in 32 bits",
        ),
    ),
    (
        "train_reid",
        "precision",
        ("32-true",),
        ("mixed 16-bit floats (BoT, AGW)", "32-bit floats", "no gain without a GPU"),
    ),
    (
        "reconstruct",
        "precision",
        ("bf16-mixed",),
        ("32-bit floats", "convolutions of G and D in bfloat16", "faster on a GPU"),
    ),
    (
        "reconstruct",
        "phi",
        ("hed",),
        (
            "φ of the feature loss: ResNet50 with ImageNet weights",
            "VGG16 refined for contours (HED)",
            "weights that need not be downloaded",
        ),
    ),
    (
        "reconstruct",
        "phi_factor",
        range(2, 1000),
        (
            "φ sees the images as they are",
            "means of 2 × 2 pixels or more (phi_factor)",
            "time; φ does not see patterns of period 2 that D sees (claims C4, C4b, C5)",
        ),
    ),
    (
        "reconstruct",
        "w_adv",
        ("auto",),
        (
            "weight 0.06 of the adversary",
            "by the ratio of gradients in the first updates",
            "0.06 is tuned to the scale of another φ",
        ),
    ),
    (
        "reconstruct",
        "d_fake_bn",
        ("train",),
        ("D sees images of G in inference mode", "of G in training mode", "asks what it changes"),
    ),
    (
        "evaluate",
        "jpeg",
        (False,),
        (
            "reconstructions are written as JPEG, truncated to 8 bits, before they are compared",
            "compared as they are; what JPEG costs the original is a floor",
            "the distance should be the network's",
        ),
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
    ("attributes", "bn_momentum"): ("new batch's share in the heads' batch norm", 0.01),
    ("reconstruct", "bn_momentum"): ("new batch's share in G's and D's batch norm", 0.01),
    ("reconstruct", "c0"): ("channels of G's first map", 128),
    ("reconstruct", "hidden"): ("units of G's hidden layer", 256),
    ("reconstruct", "base_g"): ("channels of G's last block", 16),
    ("reconstruct", "base_d"): ("channels of D's first block", 32),
    ("train_reid", "lr"): ("learning rate of the black boxes", 3.5e-4),
    ("train_reid", "milestones"): (
        "where it drops (BoT, AGW), shares of the steps",
        [0.3333, 0.75],
    ),
    ("train_reid", "drop"): ("by which factor", 0.1),
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
    random = [name for name, of in networks.items() if of.get("initialised") is False]
    if random:
        frozen = [name for name in random if of_freeze(networks[name])]
        ours = (
            "random weights" if len(random) == len(networks) else f"random in {', '.join(random)}"
        )
        if frozen:
            ours += f"; {', '.join(frozen)} freezes nothing: there is nothing to protect"
        theirs = "black boxes start from ImageNet's weights, SBS with its backbone frozen at first"
        rows.append((theirs, ours, "no weights need to be downloaded"))
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


def of_freeze(network: Mapping[str, Any]) -> bool:
    """Say whether a black box was to be frozen at first and was not."""
    return network.get("freeze", 0) > 0 and not network.get("freeze_steps", 0)


def _set(meta: Mapping[str, Any], name: str) -> str:
    of = meta["sets"][name]
    return f"{name}, {of['n_train']:,} images to train, {of['n_test']:,} to test"


def of_parameters(settings: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return the departures that hold with these parameters (stage -> name -> value)."""
    rows = [
        row
        for stage, name, values, row in BY_PARAMETER
        if settings.get(stage, {}).get(name, NotImplemented) in values
    ]
    for (stage, name), (what, theirs) in PRINTED.items():
        ours = settings.get(stage, {}).get(name, theirs)
        if ours != theirs:
            rows.append((f"{what}: {_words(theirs)}", _words(ours), TIME))
    return rows


def _words(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " and ".join(map(_words, value))
    return (
        value
        if isinstance(value, str)
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
    )
