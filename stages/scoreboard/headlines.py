"""What a paper's results come to, in two or three sentences computed from them.

Each function takes the folder reports/results/<profile>/<paper> and returns plain text. Which way a
sentence goes follows from the verdict on its claim, or from the interval it names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stages.common.files import read_json


def _verdicts(folder: Path) -> Mapping[str, str]:
    return read_json(folder / "claims.json")["verdicts"]


def _by(verdict: str | None, **words: str) -> str:
    """Choose words by a verdict: yes (supported), no (contradicted) or open (anything else)."""
    key = {"supported": "yes", "contradicted": "no"}.get(verdict or "", "open")
    return words[key]


def _interval(found: Mapping[str, Any], places: int) -> str:
    return "[{:.{p}f}, {:.{p}f}]".format(found["lo"], found["hi"], p=places).replace("-", "−")


def colourisation(folder: Path) -> str:
    """Say how the networks stand to constant colours, and whether the paper's best is the best."""
    table = read_json(folder / "table1.json")
    ours = {r["variant"]: r for r in table["rows"] if r["metric"] == "l1" and r["ours"] is not None}
    floors = {r["name"]: r for r in table["baselines"]}
    best = min(ours, key=lambda name: ours[name]["ours"])
    name = min(("grey", "mean_ab"), key=lambda key: floors[key]["l1"])
    words = {"grey": "a grey image", "mean_ab": "one constant colour"}[name]
    beats = sum(row["hi"] < floors[name]["l1"] for row in ours.values())
    judged = _verdicts(folder)
    return (
        f"Of {len(ours)} rows of Table I, {beats or 'none'} come nearer to the true colours than"
        f" {words} (L1 {floors[name]['l1']:.2f}); the lowest is {best} with"
        f" {ours[best]['ours']:.2f} {_interval(ours[best], 2)}. That IBN with"
        " spectral norm and several discriminators is perceptually the best of all"
        f" {_by(judged.get('C1'), yes='holds', no='does not hold', open='stays open')}."
    )


def gan_transform(folder: Path) -> str:
    """Set the strongest attacks on the four schemes side by side."""
    rows = {r["scheme"]: None for r in read_json(folder / "table1.json")["rows"]}
    hidden = [scheme for scheme in rows if scheme != "plain"]
    own = {scheme: read_json(folder / f"{scheme}.json") for scheme in hidden}
    blank = next(
        f["ssim"]
        for f in read_json(folder / "matrix.json")["floors"]
        if (f["name"], f["where"]) == ("blank", "attack")
    )

    def told(kind: str) -> str:
        return ", ".join(f"{s} {own[s][f'{kind}_ssim']:.2f}" for s in hidden)

    judged = _verdicts(folder)
    answer = _by(
        judged.get("C2b"),
        yes="The learnt transformation gives away less than every cipher",
        no="The learnt transformation does not give away less than every cipher",
        open="Whether the learnt transformation gives away less than every cipher stays open",
    )
    return (
        f"{answer}: SSIM of the best reconstruction {told('worst')}; without pairs of images and"
        f" ciphers {told('worst_unpaired')}; a blank image has {blank:.2f}. Attacks that need no"
        " training"
        + _by(
            judged.get("X2"),
            yes=" open the ciphers that the paper's GAN attack does not.",
            no=" open no more than the paper's GAN attack does.",
            open=" were not shown to open more than the paper's GAN attack does.",
        )
    )


def sift_inversion(folder: Path) -> str:
    """Say whether descriptors identify a face, and what the method is worth beside the floors."""
    rows = {r["name"]: r for r in read_json(folder / "table.json")["rows"] if r["set"] == "faces"}
    run = rows["R42_G"]
    found, near = run["values"]["id1"], run["values"]["pd"]
    mean = rows["mean"]["values"]["pd"]
    chance = run["id1_chance"]
    more = found["lo"] > chance
    side = (
        "nearer to the original than"
        if near["hi"] < mean["lo"]
        else "farther from the original than"
        if near["lo"] > mean["hi"]
        else "about as far from the original as"
    )
    judged = _verdicts(folder)
    return (
        f"Of the images that the paper's method makes from SIFT descriptors, {found['value']:.1f} %"
        f" {_interval(found, 1)} lead back to the right one of {run['n']}"
        f" originals, {'more than' if more else 'not more than'} chance ({chance:.1f} %); they are"
        f" {side} the mean training image (perceptual distance {near['value']:.2f} against"
        f" {mean['value']:.2f}). That the method beats the earlier network"
        f" {_by(judged.get('C1'), yes='holds', no='does not hold', open='stays open')} at this"
        " scale."
    )


def deep_features(folder: Path) -> str:
    """Say what the attack on ShuffleBits recovers and what encryption still lets through."""
    names = [c["name"] for c in read_json(folder / "table.json")["cells"]]
    own = [read_json(folder / f"{name}.json") for name in names]
    judged = _verdicts(folder)

    def span(metric: str, times: int, places: int) -> str:
        values = sorted(times * cell[metric] for cell in own if metric in cell)
        if not values:
            return "not measured"
        lo, hi = (f"{value:.{places}f}" for value in (values[0], values[-1]))
        return lo if lo == hi else f"{lo} to {hi}"

    answer = _by(
        judged.get("C15"),
        no="ShuffleBits does not hide features",
        yes="ShuffleBits withstands the attack",
        open="Whether ShuffleBits hides features stays open",
    )
    return (
        f"{answer}: from a single encrypted vector, without the key, an attack recovers the"
        f" features with a centred cosine of {span('attacked_centred_median', 1, 3)} (1 is all, a"
        " guess has 0). Attributes are recognised from plain features with a balanced accuracy of"
        f" {span('ba_mean', 100, 1)} %, from what the attack recovers"
        f" {span('ba_attacked', 100, 1)} %; guessing has {span('chance', 100, 1)} %."
    )


HEADLINES: dict[str, Callable[[Path], str]] = {
    "colourisation": colourisation,
    "gan_transform": gan_transform,
    "sift_inversion": sift_inversion,
    "deep_features": deep_features,
}


def headline(paper: str, folder: Path) -> str | None:
    """Return the finding of a paper, None for a paper that has no headline here.

    Raises
    ------
    InputError
        If a file of the results is missing or damaged.
    """
    return HEADLINES[paper](folder) if paper in HEADLINES else None
