"""The sections of paper B's report, each a function of what :func:`load` found.

Numbers, and the sentences about them, come from the results of ``score`` and from the stages'
artifacts; what has no result yet is shown as "not run". The notebook only puts the sections in
order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from stages.common import report as page
from stages.common.figures import DPI, SCREEN_DPI, save_figure, save_table
from stages.common.paper_report import (
    count,
    fingerprint,
    judged,
    links,
    listed,
    made_of,
    optional,
    sentence,
    sources,
    verdict_of,
)
from stages.common.params import section
from stages.common.report import Html
from stages.sift_inversion import figures as draw
from stages.sift_inversion.deviations import ALWAYS, of_parameters, of_scale
from stages.sift_inversion.figures import KEYPOINTS, ORIGINAL, Column
from stages.sift_inversion.networks import (
    Discriminator,
    Dosovitskiy,
    FineNet,
    Row,
    half,
    parameters,
    table,
)
from stages.sift_inversion.summaries import COMPARED, RUNS, in_order

PAPER = "sift_inversion"
STAGES = ("prepare", "extract", "train", "refine", "reconstruct", "evaluate", "score")
OURS, BASELINE = "R42_G", "B5"
FACES, MULTI = "faces", "multi"
WHAT = {
    "B5": "baseline [5]: descriptor, size, angle and offset; L2",
    "B5_128": "control: the baseline with the descriptor alone",
    "R4_L2": "R on the map of 4 px, L2",
    "R4_J": "R on the map of 4 px, joint loss",
    "R2_J": "R on the map of 2 px, joint loss",
    "R44_J": "control: two R on the map of 4 px, joint loss",
    "R42_L2": "R on both maps, L2",
    "R42_J_nostyle": "R on both maps, L2 and perceptual terms",
    "R42_J_half": "R on both maps, joint loss, half of the images",
    "R42_J": "R on both maps, joint loss",
    "R42_N": "control: R42_J and G, no adversary",
    "R4_G": "R4_J and G, with the adversary",
    "R42_G": "R42_J and G, with the adversary: the paper's method",
    "M_R42_J": "as R42_J, of eight categories",
    "M_R42_G": "as R42_G, of eight categories",
}
FLOORS = {
    "mean": "mean training image",
    "mean_colour": "mean colour of the training images",
    "other": "another test image",
    "grey": "the original without colour",
    "blur": "the original, blurred",
}
NOTHING_KNOWN = ("mean", "other")  # floors that look at no descriptor
# metric -> its head, decimals; None: three significant digits
METRICS: dict[str, tuple[str, int | None]] = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "mae": ("MAE", 1),
    "nerr": ("NERR", 3),
    "ssim_y": ("SSIM Y", 3),
    "chroma_error": ("ΔCbCr", 1),
    "pd": ("PD", 3),
    "log_sharp_abs": ("|ln SHARP|", 2),
    "log_sharp": ("ln SHARP", 2),
    "fd": ("FD", None),
    "chk": ("CHK", 4),
    "dcos": ("DC", 3),
    "dmatch": ("DM", 3),
    "kpr": ("KPR", 3),
    "id1": ("ID1", 1),
    "r_cb": ("r of Cb", 2),
    "r_cr": ("r of Cr", 2),
    "pd_gap_equal": ("PD face − rest at equal texture", 3),
}
GROUPS = {  # of the table of all runs
    "pixels": ("psnr", "ssim", "mae", "nerr"),
    "luma, colour": ("ssim_y", "chroma_error"),
    "looks": ("pd", "log_sharp_abs", "fd", "chk"),
    "descriptors": ("dcos", "dmatch", "kpr"),
    "privacy": ("id1",),
}
REGIONS = {"face": "face", "rest": "rest", "far": "far from keypoints"}
OF_REGIONS = ("pd", "psnr", "log_sharp")
DESIGN = {  # loss and second stage -> maps -> run
    "L2": {"4": "R4_L2", "4 + 2": "R42_L2"},
    "L2 and perceptual": {"4 + 2": "R42_J_nostyle"},
    "joint": {"4": "R4_J", "2": "R2_J", "4 + 4": "R44_J", "4 + 2": "R42_J"},
    "joint, then G": {"4 + 2": "R42_N"},
    "joint, then G and D": {"4": "R4_G", "4 + 2": "R42_G"},
}
MAPS = ("4", "4 + 2", "4 + 4", "2")
DESIGN_METRICS = ("pd", "log_sharp_abs", "id1")
# claim -> what it says of the method, what it compares, its control and what that is
PARTS = {
    "C2": ("the joint loss", ("R42_J", "R42_L2"), None, ""),
    "C3": ("the second scale", ("R42_G", "R4_G"), "R44_J", "two networks on one scale"),
    "C4": ("the adversarial stage", ("R42_G", "R42_J"), "R42_N", "the same G without adversary"),
}
# figure -> images that are wanted, measures under a tile
SHOWN = {
    "fig1": (4, ("pd", "log_sharp", "kpr", "id1")),
    "fig4": (4, ("pd", "log_sharp", "psnr", "kpr")),
    "fig5": (5, ("pd", "log_sharp", "chroma_error", "id1")),
    "fig6": (4, ("pd", "log_sharp", "ssim_y", "dcos")),
    "fig7": (4, ("pd", "id1", "pd_in")),
    "fig8": (8, ("pd", "log_sharp", "id1")),
}
FIGURE_LIMIT_BYTES = 280_000  # of a figure in the page; six of them, curves and tables in 3 MB
PAPER_SIZE, PAPER_CHANNELS, CHANNELS_5 = 256, 128, 133
PAPER_G = {"ngf": 64, "blocks": 9, "dropout": 0.5}
PAPER_D = {"ndf": 64, "layers": 3}
COMMAND = f"dvc repro stages/{PAPER}/dvc.yaml:"
SCORE = f"{COMMAND}score"


@dataclass(frozen=True)
class Run:
    """What exists of one profile; missing results are None or absent.

    rows : name of a run -> its row of table.json.
    floors : (set, name) -> row of table.json.
    """

    profile: str
    figures: Path
    artifacts: Path
    params: Mapping[str, Any]
    paper: Mapping[str, Any]
    meta: Mapping[str, Any] | None
    table: Mapping[str, Any] | None
    rows: Mapping[str, Mapping[str, Any]]
    floors: Mapping[tuple[str, str], Mapping[str, Any]]
    partial: Mapping[str, Any] | None
    ablation: Mapping[str, Any] | None
    keypoints: Mapping[str, Any] | None
    claims: list[Mapping[str, Any]]

    def verdict(self, claim: str) -> str:
        """Return the verdict on a claim; "not run" if it was not judged."""
        return verdict_of(self.claims, claim)

    def cell(self, name: str, metric: str) -> Mapping[str, Any] | None:
        """Return value and interval of a run's metric."""
        return self.rows.get(name, {}).get("values", {}).get(metric)

    def floor(self, image_set: str, name: str, metric: str) -> Mapping[str, Any] | None:
        """Return value and interval of a floor's metric."""
        return self.floors.get((image_set, name), {}).get("values", {}).get(metric)

    @property
    def missing(self) -> list[str]:
        """Names of the runs without results."""
        planned = (self.params.get(PAPER) or {}).get("variants") or RUNS
        return [name for name in in_order(list(planned), RUNS) if name not in self.rows]


def load(profile: str, figures: Path, root: Path = Path()) -> Run:
    """Collect the paper's parameters, claims and results of ``profile`` below ``root``.

    Raises
    ------
    InputError
        If params.yaml has no such profile, or a file that exists cannot be read.
    """
    params, artifacts, folder, paper, claims = sources(PAPER, profile, root)
    scored = optional(folder / "table.json")
    rows = (scored or {}).get("rows", [])
    return Run(
        profile=profile,
        figures=figures,
        artifacts=artifacts,
        params=params,
        paper=paper,
        meta=optional(artifacts / "prepare" / "meta.json"),
        table=scored,
        rows={row["name"]: row for row in rows if row["kind"] == "run"},
        floors={(row["set"], row["name"]): row for row in rows if row["kind"] == "floor"},
        partial=optional(folder / "partial.json"),
        ablation=optional(folder / "ablation.json"),
        keypoints=optional(folder / "keypoints.json"),
        claims=claims,
    )


# ---------------------------------------------------------------- words


def _fixed(value: float | int | None, metric: str) -> str:
    """Write a value of a metric (of a region, too) with its decimals and a true minus."""
    if value is None:
        return page.NOTHING
    known = METRICS.get(metric) or METRICS.get(_base(metric)) or (metric, 3)
    return page.number(value, 3) if known[1] is None else draw.fixed(value, known[1])


def _base(metric: str) -> str:
    """Return the metric that a region's or a box's is of, as psnr of psnr_face."""
    return next((m for m in ("log_sharp", "psnr", "pd") if metric.startswith(f"{m}_")), metric)


def _bracket(cell: Mapping[str, Any], metric: str) -> str:
    return f"[{_fixed(cell['lo'], metric)}, {_fixed(cell['hi'], metric)}]"


def _with_interval(cell: Mapping[str, Any] | None, metric: str) -> Html | None:
    if cell is None:
        return None
    return Html(f"{_fixed(cell['value'], metric)} <small>{_bracket(cell, metric)}</small>")


def _head(run: Run, metric: str) -> str:
    """Head a column: the metric, its unit, and an arrow to the better side."""
    known = {m["name"]: m for m in (run.table or {}).get("metrics", [])}.get(metric, {})
    unit = f" ({known['unit']})" if known.get("unit") else ""
    arrow = {"lower": " ↓", "higher": " ↑"}.get(known.get("better") or "", "")
    name = METRICS[metric][0] if metric in METRICS else METRICS[_base(metric)][0]
    return f"{name}{unit}{arrow}"


def _side(own: Mapping[str, Any], lo: float, hi: float) -> str:
    """Say on which side of an interval another one lies."""
    if own["lo"] > hi:
        return "above"
    return "below" if own["hi"] < lo else "not told apart from"


# ---------------------------------------------------------------- finding


def _shown_run(run: Run) -> str | None:
    """Return the paper's method, or the run nearest to it in the order of ``RUNS``."""
    faces = [name for name in in_order(list(run.rows), RUNS) if run.rows[name]["set"] == FACES]
    return OURS if OURS in faces else faces[-1] if faces else None


def _against_floors(run: Run, name: str, metric: str) -> str:
    """Say on which side of the floors a run's value lies, as in "below that of ... (1.00)"."""
    own, image_set = run.cell(name, metric), run.rows[name]["set"]
    sides: dict[str, list[str]] = {}
    for floor in NOTHING_KNOWN:
        cell = run.floor(image_set, floor, metric)
        if own and cell:
            article = "" if FLOORS[floor].startswith("another") else "the "
            words = f"{article}{FLOORS[floor]} ({_fixed(cell['value'], metric)})"
            sides.setdefault(_side(own, cell["lo"], cell["hi"]), []).append(words)
    return "; ".join(f"{side} that of {listed(words)}" for side, words in sides.items())


def _leak(run: Run) -> list[Html]:
    """Say how much of an image its descriptors give away: retrieval, PD and DC against floors."""
    name = _shown_run(run)
    if name is None:
        return [Html("No network has reconstructed a face yet.")]
    who = "the paper's method (R42_G)"
    if name != OURS:
        who = f"the network {name}, since the paper's method (R42_G) was not run,"
    said = []
    row, found = run.rows[name], run.cell(name, "id1")
    if found is not None:
        chance = row["id1_chance"]
        side = {"above": "above", "below": "below"}.get(
            _side(found, chance, chance), "no more than"
        )
        said.append(
            sentence(
                f"From the SIFT descriptors of a face alone, {who} makes an image whose nearest "
                f"of {row['n']:,} originals is the right one in {_fixed(found['value'], 'id1')} % "
                f"of cases {_bracket(found, 'id1')}: {side} chance, {page.number(chance, 2)} %",
                judged(run.claims, "C12"),
                ".",
            )
        )
    for metric, words in (
        ("pd", "Its perceptual distance to the original (PD, 0 is perfect) is "),
        ("dcos", "The descriptors of the new image and the old ones have a cosine (DC, 1 is "
                 "perfect) of "),
    ):  # fmt: skip
        own = run.cell(name, metric)
        beside = _against_floors(run, name, metric)
        if own:
            value = _fixed(own["value"], metric)
            said.append(sentence(f"{words}{value}{', ' if beside else ''}{beside}."))
    return said


def _control(run: Run, claim: str, control: str) -> str:
    """Return "supported" if all parts of a claim that name its control are; else "open"."""
    parts = next((c.get("parts") or [] for c in run.claims if c["id"] == claim), [])
    verdicts = [p["verdict"] for p in parts if control in p["name"].split()]
    if not verdicts:
        return "not run"
    return "supported" if set(verdicts) == {"supported"} else "open"


def _earned(run: Run) -> list[Html]:
    """Say which part of the method earns it, by the verdicts on C2 to C4 and their controls."""
    earlier = "the earlier network B5, trained on the same images,"
    whole = {
        "supported": f"The whole method beats {earlier} in every measure of the claim",
        "contradicted": f"The whole method loses to {earlier} in at least one measure",
        "inconclusive": f"Whether the whole method beats {earlier} stays open",
        "not run": f"Whether the whole method beats {earlier} was not judged",
    }[run.verdict("C1")]
    groups: dict[str, list[str]] = {}
    for claim, (part, _, control, what) in PARTS.items():
        verdict = run.verdict(claim)
        state = {
            "supported": "Parts of the method shown to earn it",
            "contradicted": "Parts that lose in at least one measure",
            "inconclusive": "Parts whose gain stays open",
            "not run": "Parts not judged",
        }[verdict]
        beyond = _control(run, claim, control) if control else "supported"
        aside = ""
        if verdict == "supported" and beyond != "supported":
            state = "Parts that gain, but not shown to be more than their control"
            lacking = ", not run" if beyond == "not run" else ""
            aside = f" ({control}, {what}{lacking})"
        groups.setdefault(state, []).append(sentence(part, aside, judged(run.claims, claim)))
    return [
        sentence(whole, judged(run.claims, "C1"), "."),
        *(Html(f"{state}: {listed(names)}.") for state, names in groups.items()),
    ]


def _against(run: Run, first: str, second: str, metric: str) -> str:
    a, b = run.cell(first, metric), run.cell(second, metric)
    if a is None or b is None:
        return ""
    unit = {"psnr": " dB", "id1": " %"}.get(metric, "")
    one, other = (_fixed(cell["value"], metric) for cell in (a, b))
    return f"{METRICS[metric][0]} {one} against {other}{unit}"


def _details(run: Run) -> list[Html]:
    """Give the numbers behind the parts, with their controls."""
    pairs = [
        (f"The method against the baseline ({OURS}, {BASELINE})", OURS, BASELINE,
         ("pd", "id1", "psnr")),
        ("The joint loss against L2 (R42_J, R42_L2)", "R42_J", "R42_L2",
         ("pd", "log_sharp_abs", "psnr")),
        ("Two scales against one (R42_G, R4_G)", "R42_G", "R4_G", ("pd", "ssim_y")),
        ("two scales against two networks on one scale (R42_J, R44_J)", "R42_J", "R44_J",
         ("pd", "ssim_y")),
        ("The adversarial stage against R alone (R42_G, R42_J)", "R42_G", "R42_J",
         ("fd", "pd", "psnr")),
        ("with against without the adversary (R42_G, R42_N)", "R42_G", "R42_N", ("fd", "pd")),
    ]  # fmt: skip
    said = []
    for words, first, second, metrics in pairs:
        numbers = [shown for m in metrics if (shown := _against(run, first, second, m))]
        if not numbers:
            continue
        lead = "Control, " if words[0].islower() else ""
        said.append(sentence(f"{lead}{words}: {', '.join(numbers)}."))
    return said


def _seeds(run: Run) -> int:
    counts = [len(c["seeds"]) for row in run.rows.values() for c in row["values"].values()]
    return max(counts, default=0)


def _scale(run: Run) -> list[str]:
    """Say on how many images and seeds the page rests, and what is missing."""
    if not run.rows or run.meta is None:
        return [f"Profile {run.profile} has no results yet."]
    sets = [
        f"{row['n']:,} test images of {run.meta['sets'][name]['dataset']} ({name})"
        for name in (FACES, MULTI)
        if (row := next((r for r in run.rows.values() if r["set"] == name), None))
    ]
    seeds = _seeds(run)
    said = [
        f"Judged on {listed(sets)} at {run.meta['size']} pixels with {count(seeds, 'seed')} "
        f"(profile {run.profile})."
    ]
    if seeds == 1:
        said.append(
            "One seed cannot tell a method from luck: claims on trained networks stay open."
        )
    if run.missing:
        said.append(f"Not run: {listed(run.missing)}.")
    for name, row in run.rows.items():
        if row.get("collapsed"):
            seeds_lost = listed([str(seed) for seed in row["collapsed"]])
            said.append(f"The discriminator won outright in {name}, seed {seeds_lost}.")
    return said


def finding(run: Run) -> Html:
    """Answer the paper's question in one paragraph, computed from the results; then verdicts."""
    verdicts = [str(c.get("verdict") or "not run") for c in run.claims]
    answer, details = [*_leak(run), *_earned(run)], _details(run)
    rest: list[str] = _scale(run)
    counts = [
        f"{verdicts.count(verdict)} {verdict}" for verdict in page.VERDICTS if verdict in verdicts
    ]
    rest.append(f"Of {count(len(verdicts), 'claim')}, {listed(counts)}.")
    for verdict in ("supported", "contradicted"):
        found = [str(c["id"]) for c, v in zip(run.claims, verdicts, strict=True) if v == verdict]
        if found:
            rest.append(Html(f"{verdict.capitalize()}: {links(found)}."))
    paragraphs = [" ".join(part) for part in (answer, details, map(page.text, rest))]
    body = "\n".join(f"<p>{words}</p>" for words in paragraphs if words)
    return Html(f"{body}\n{page.tally(verdicts)}")


# ---------------------------------------------------------------- all runs


def _names(run: Run) -> list[tuple[str, str | None, str]]:
    """Return (name, set, kind) of all rows: the runs of a set, also missing ones, then its floors.

    The kind is "run", "floor" or "missing".
    """
    rows: list[tuple[str, str | None, str]] = []
    for image_set in (FACES, MULTI):
        here = [n for n in run.rows if run.rows[n]["set"] == image_set]
        lost = [n for n in run.missing if n.startswith("M_") == (image_set == MULTI)]
        for name in in_order([*here, *lost], RUNS):
            rows.append((name, image_set, "run" if name in run.rows else "missing"))
        rows += [(name, s, "floor") for s, name in run.floors if s == image_set]
    return rows


def _measured(
    run: Run, columns: Sequence[tuple[str, str]], *, caption: str, name: str
) -> Html:  # fmt: skip
    """Write a table of all runs and floors.

    Parameters
    ----------
    columns : (head of the group, metric).
    name : of the CSV.
    """
    known = _names(run)
    rows: list[list[object]] = []
    plain: list[dict[str, object]] = []
    for row_name, image_set, kind in known:
        if kind == "floor":
            values = run.floors[str(image_set), row_name]["values"]
            about: object = FLOORS.get(row_name, row_name)
        else:
            values = run.rows.get(row_name, {}).get("values", {})
            about = WHAT.get(row_name, "")
            if kind == "missing":
                about = Html(f"{page.text(about)} {page.chip('not run')}")
        cells = [_with_interval(values.get(metric), metric) for _, metric in columns]
        rows.append([row_name, image_set, about, *cells])
        record: dict[str, object] = {"name": row_name, "set": image_set, "kind": kind}
        for _, metric in columns:
            cell = values.get(metric) or {}
            record |= {metric: cell.get("value"), f"{metric} lo": cell.get("lo")}
            record |= {f"{metric} hi": cell.get("hi"), f"{metric} n": cell.get("n")}
        plain.append(record)
    heads = [("", "run"), ("", "set"), ("", "what it is")]
    heads += [(group, _head(run, metric)) for group, metric in columns]
    frame = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=object)
    csv = save_table(pd.DataFrame(plain), run.figures / f"{name}.csv")
    quiet = [i for i, (_, _, kind) in enumerate(known) if kind == "floor"]
    parted = [(s, kind == "floor") for _, s, kind in known]
    rules = [i for i in range(1, len(parted)) if parted[i] != parted[i - 1]]
    return page.table(
        frame,
        caption=caption,
        quiet=quiet,
        rules=rules,
        csv=f"{run.figures.name}/{csv.name}",
    )


def runs(run: Run) -> Html:
    """All runs and floors in all measures of the whole image."""
    if run.table is None:
        return page.not_run("The table of all runs", SCORE)
    columns = [(group, metric) for group, metrics in GROUPS.items() for metric in metrics]
    level = f"{100 * run.table['level']:g} %"
    seeds = _seeds(run)
    luck = f"images and {count(seeds, 'seed')}" if seeds > 1 else "images only (1 seed)"
    apart = run.table.get("apart")
    differs = f" Ours differs from the paper's setting: {apart}." if apart else ""
    return _measured(
        run,
        columns,
        caption=f"Means over test images, with {level} intervals over {luck}. The paper prints no "
        f"number.{differs} Faint: images that "
        "show nothing of the descriptors, or the original with something missing; without them no "
        "number can be read. Below the line: eight categories. Arrows point to the better side. "
        "PSNR to NERR compare pixels and reward blur. NERR: distance over that of two test images. "
        "ΔCbCr: error of the two colour channels. PD: perceptual distance. |ln SHARP|: how much "
        "sharper or blurrier. FD: Fréchet distance of features. CHK: checkerboard. DC, DM: the "
        "descriptors computed anew, their cosine, and whether they find their keypoint. KPR: "
        "keypoints detected again. ID1: originals found by their reconstruction. Images without "
        "keypoints are left out of DC, DM and KPR; the file counts those that are in.",
        name="runs",
    )


def regions(run: Run) -> Html:
    """All runs and floors by region of the image, and the colour of the face."""
    if run.table is None:
        return page.not_run("The table of regions", SCORE)
    columns = [
        (title, f"{metric}_{region}") for region, title in REGIONS.items() for metric in OF_REGIONS
    ]
    columns += [("colour of the face", metric) for metric in ("r_cb", "r_cr")]
    columns += [("texture", "pd_gap_equal")]
    return _measured(
        run,
        columns,
        caption="The same by region (claims C6 to C8): the face is an ellipse in the middle, the "
        "rest lies around it, far is what lies away from every keypoint. ln SHARP below 0: "
        "blurrier than the original. r: correlation of the mean colour of the face with the "
        "original's. At equal texture: PD(face) − PD(rest) at equal density of keypoints and equal "
        "gradient energy.",
        name="regions",
    )


# ---------------------------------------------------------------- images


def _credit(run: Run, image_set: str) -> str:
    text = ((run.meta or {}).get("sets") or {}).get(image_set, {}).get("attribution")
    return f" Images: {text}" if text else ""


def _figure(
    run: Run, id: str, image_set: str, columns: Sequence[Column], caption: str
) -> Html:  # fmt: skip
    """Draw one of the paper's figures; a run that has no images is named as not run."""
    number = f"Fig. {id.removeprefix('fig')}"
    wanted, names = SHOWN[id]
    legend = "; ".join(f"{draw.UNDER[name][0]}, {draw.UNDER[name][2]}" for name in names)
    while True:
        drawn = draw.comparison_grid(run.artifacts, image_set, columns, names=names, wanted=wanted)
        if drawn is None:
            return page.not_run(number, f"{COMMAND}reconstruct")
        path = save_figure(drawn[0], run.figures / f"{id}.png", drawn[1])
        found = set(drawn[1]["shows"])
        planned = dict.fromkeys(c.what for c in columns if c.what not in (ORIGINAL, KEYPOINTS))
        lost = [name for name in planned if name not in found]
        lacking = f" Not run: {listed(lost)}." if lost else ""
        heads = listed([c.head for c in columns if c.what == ORIGINAL or c.what in found])
        shown = page.figure(
            path,
            alt=f"{number}: a row a test image, columns {heads}; what was measured of every tile "
            "is in the CSV",
            caption=f"{number}. {caption} The first images of the panel, by a rule; first seed. "
            f"Beneath a tile its own numbers: {legend}.{lacking}{_credit(run, image_set)}",
            wide=True,
            dpi=SCREEN_DPI,
        )
        wanted = drawn[1].image.nunique() - 1  # fewer, if these take too much of the page
        if len(shown) <= FIGURE_LIMIT_BYTES or wanted == 0:
            return shown


def _compared(run: Run, id: str) -> list[Column]:
    """Return the columns of a figure as paper.yaml lists them."""
    figure = next(f for f in run.paper["figures"] if f["id"] == id)
    return [Column(name, name) for name in figure["variants"]]


def fig1(run: Run) -> Html:
    """Fig. 1: keypoints, the baseline's and the proposed reconstruction."""
    caption = (
        "Circles: keypoints, their scale σ and direction; a descriptor sees ten times as far. "
    )
    caption += "The networks are fed with descriptors only, not with the image."
    return _figure(run, "fig1", FACES, _compared(run, "fig1"), caption)


def fig4(run: Run) -> Html:
    """Fig. 4: the L2 loss against the joint loss."""
    caption = "R with the L2 loss, and with the joint loss."
    return _figure(run, "fig4", FACES, _compared(run, "fig4"), caption)


def fig5(run: Run) -> Html:
    """Fig. 5: the baseline against the proposed method."""
    return _figure(run, "fig5", FACES, _compared(run, "fig5"), "The baseline and the method.")


def fig6(run: Run) -> Html:
    """Fig. 6: one scale against two, both with the adversarial stage."""
    caption = "The method on the map of 4 px alone, and on both."
    return _figure(run, "fig6", FACES, _compared(run, "fig6"), caption)


def _region_shown(run: Run) -> str | None:
    """Return the box of Fig. 7: centred, of claim C5's size or the nearest there is."""
    boxes = [
        box
        for box in (run.partial or {}).get("boxes", [])
        if (box["place"], box["mode"]) == ("centre", "centre")
    ]
    numbers = next((c for c in run.claims if c["id"] == "C5"), {}).get("numbers") or {}
    nearest = sorted(boxes, key=lambda box: abs(box["f"] - numbers.get("box", 0)))
    return nearest[0]["condition"] if nearest else None


def fig7(run: Run) -> Html:
    """Fig. 7: a region's keypoints removed, and what is made of the others."""
    condition = _region_shown(run)
    name = (run.partial or {}).get("run")
    if condition is None or name is None or run.partial is None:
        return page.not_run("Fig. 7", f"{COMMAND}reconstruct")
    strict = condition.replace("box-centre", "box-support", 1)
    columns = [
        Column(ORIGINAL, ORIGINAL),
        Column(f"{name}, all", name),
        Column("keypoints left", KEYPOINTS, condition),
        Column(f"{name}, from these", name, condition),
    ]
    if any(box["condition"] == strict for box in run.partial["boxes"]):
        columns += [
            Column("left, by support", KEYPOINTS, strict),
            Column(f"{name}, from those", name, strict),
        ]
    f = float(condition.rpartition("-")[2])
    return _figure(
        run,
        "fig7",
        str(run.partial["set"]),
        columns,
        f"The keypoints in a box of {100 * f:g} % of the image are removed (crosses); by support: "
        f"also those whose descriptor looks into it. The network was trained on all.",
    )


def fig8(run: Run) -> Html:
    """Fig. 8: eight categories."""
    caption = "Images of several categories, by a network trained on all of them."
    return _figure(run, "fig8", MULTI, _compared(run, "fig8"), caption)


# ---------------------------------------------------------------- ablation


def design(run: Run) -> Html:
    """Loss, scales and adversary: the ablation as one table."""
    if run.table is None:
        return page.not_run("The ablation", SCORE)
    heads = [("", "loss, second stage")]
    heads += [(f"map {m} px", _head(run, metric)) for m in MAPS for metric in DESIGN_METRICS]
    rows: list[list[object]] = []
    for stage, by_map in DESIGN.items():
        cells: list[object] = [stage]
        for m in MAPS:
            name = by_map.get(m)
            for metric in DESIGN_METRICS:
                cell = run.cell(name, metric) if name else None
                cells.append(Html("") if name is None else _with_interval(cell, metric))
        rows.append(cells)
    kept = [0, *(i for i in range(1, len(heads)) if any(row[i] != "" for row in rows))]
    frame = pd.DataFrame(
        [[row[i] for i in kept] for row in rows],
        columns=pd.MultiIndex.from_tuples([heads[i] for i in kept]),
        dtype=object,
    )
    return page.table(
        frame,
        caption="What is trained, against what it is fed with. 4 + 4 is the control for two "
        "networks, G without D that for more layers. Empty: no such run; a dash: not run.",
    )


def effects(run: Run) -> Html:
    """Each change of the ablation, and the difference it makes in all measures."""
    if run.ablation is None:
        return page.not_run("The effects of the ablation", SCORE)
    metrics = list(COMPARED)
    rows: list[list[object]] = []
    rules: list[int] = []
    plain: list[dict[str, object]] = []
    for axis in run.ablation["axes"]:
        rules.append(len(rows))
        title = Html(f"<small>{page.text(axis['what'])}</small>")
        rows.append([title, Html(""), *[Html("")] * len(metrics)])
        for row in axis["rows"]:
            lost = Html(f"{page.text(row['change'])} {page.chip('not run')}")
            cells: list[object] = [f"{row['first']} → {row['second']}"]
            cells.append(lost if row.get("missing") else row["change"])
            for metric in metrics:
                effect = row["effects"].get(metric)
                cells.append(_effect(effect, metric))
                if effect:
                    values = {f"{k} value": effect[k] for k in ("first", "second")}
                    rest = {k: effect[k] for k in ("difference", "lo", "hi", "better")}
                    pair = {k: row[k] for k in ("first", "second", "change")}
                    about = {"axis": axis["axis"], **pair, "metric": metric}
                    plain.append({**about, **values, **rest})
            rows.append(cells)
    columns = ["change", "what changes", *(_head(run, metric) for metric in metrics)]
    csv = save_table(pd.DataFrame(plain), run.figures / "effects.csv")
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="The second run minus the first, on the same images, with intervals; better or "
        "worse only where the interval leaves no doubt of the side. Intervals of single cells: of "
        "many, some err.",
        rules=rules[1:],
        csv=f"{run.figures.name}/{csv.name}",
    )


def _effect(effect: Mapping[str, Any] | None, metric: str) -> Html | None:
    if effect is None:
        return None
    places = METRICS[metric][1]
    difference = effect["difference"]
    value = page.signed(difference) if places is None else draw.fixed(difference, places, sign=True)
    word = {True: " better", False: " worse"}.get(effect["better"], "")
    return Html(f"{value} <small>{_bracket(effect, metric)}{word}</small>")


def learning_curves(run: Run) -> Html:
    """Draw the losses of the held out images, the shares of the terms, and how D does."""
    names = list(dict.fromkeys([*RUNS, *run.rows]))
    drawn = draw.learning_curves(run.artifacts, names)
    if drawn is None:
        return page.not_run("Learning curves", f"{COMMAND}train")
    path = save_figure(drawn[0], run.figures / "learning_curves.png", drawn[1])
    lines = drawn[1]
    said = ""
    share = lines.query("quantity == 'adv_share'")
    if not share.empty:
        last = share.groupby(["run", "seed"]).value.last().mean()
        said = f" At the end the adversary's gradient is {page.number(last, 2)} of the joint one."
    return page.figure(
        path,
        alt="Learning curves of all runs: validation loss, shares of the terms of the joint loss, "
        "gradient of the adversary, accuracy and loss of D against images seen; the numbers are in "
        "the CSV",
        caption="Training. Thin: one seed; thick: mean of the seeds. The second stage starts at 0 "
        f"images anew. An accuracy of D of 1 would leave nothing to learn from it.{said}",
        dpi=DPI,
    )


# ---------------------------------------------------------------- fewer descriptors


def leakage(run: Run) -> Html:
    """Fewer descriptors: what is left of an image."""
    if run.partial is None or run.partial.get("run") is None:
        return page.not_run("Fewer descriptors", SCORE)
    image_set = str(run.partial["set"])
    floors: dict[str, dict[str, float]] = {}
    for metric in draw.LEAKS:
        for name, words in (("mean", "mean image"), ("other", "another image")):
            cell = run.floor(image_set, name, metric)
            if cell is not None and metric != "id1":
                floors.setdefault(metric, {})[words] = cell["value"]
    row = run.rows.get(str(run.partial["run"]), {})
    if "id1_chance" in row:
        floors["id1"] = {"chance": row["id1_chance"]}
    drawn = draw.leakage_curves(run.partial, floors)
    if drawn is None:
        return page.not_run("Fewer descriptors", f"{COMMAND}reconstruct")
    path = save_figure(drawn[0], run.figures / "leakage.png", drawn[1])
    figure = page.figure(
        path,
        alt="What a reconstruction gives away against the share of its descriptors that were "
        "removed, by a box at several places or at random, in six measures; the numbers are in the "
        "CSV",
        caption=f"{run.partial['run']}, trained on all descriptors, fed with some of them. A box "
        "removes the keypoints inside; by support, also those whose descriptor looks into it. "
        "Shades: intervals. Grey: images made without any descriptor.",
        dpi=DPI,
    )
    return Html(f"{figure}\n{_partial_table(run.partial, run)}")


def _partial_table(partial: Mapping[str, Any], run: Run) -> Html:
    """List the centred boxes, the random choices and the scales."""
    rows: list[list[object]] = []
    rules: list[int] = []
    metrics = ("id1", "pd", "dcos", "kpr")
    inside = ("pd_in", "pd_in_full", "pd_in_mean", "pd_in_mean_colour", "pd_out", "pd_out_full")

    def add(words: str, removed: float | None, values: Mapping[str, Any]) -> None:
        share = None if removed is None else f"{100 * removed:.1f}"
        cells = [_with_interval(values.get(m), m) for m in metrics]
        boxed = [_fixed(values[m]["value"], m) if m in values else Html("") for m in inside]
        rows.append([words, share, *cells, *boxed])

    add("all keypoints", 0.0, partial["full"][0]["values"])
    centred = [box for box in partial["boxes"] if box["place"] == "centre"]
    for mode, same in groupby(centred, key=lambda box: box["mode"]):
        rules.append(len(rows))
        for box in same:
            how = "" if mode == "centre" else ", by support"
            add(f"centred box of {100 * box['f']:g} %{how}", box.get("removed"), box["values"])
    rules.append(len(rows))
    for keep in reversed(partial["keeps"]):
        share = f"{100 * keep['p']:g} % of them, at random"
        add(share, keep.get("removed"), keep["values"])
    for part in partial["sigmas"]:
        size = {"above": "large", "below": "small"}[part["half"]]
        add(f"only {size} ones", part.get("removed"), part["values"])
    heads = [("", "left"), ("", "removed (%)"), *(("whole image", _head(run, m)) for m in metrics)]
    titles = ("these", "with all", "mean image there", "mean colour there")
    heads += [("PD inside the box", title) for title in titles]
    heads += [("PD outside", title) for title in ("these", "with all")]
    frame = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=object)
    table = page.table(
        frame,
        caption="The same in numbers (claim C5); other places are in the figure's file. Large and "
        "small: keypoints above and below the image's median scale.",
        rules=[i for i in rules if i < len(rows)],
    )
    return Html(f"<details><summary>The numbers</summary>\n{table}\n</details>")


# ---------------------------------------------------------------- descriptors and networks


def sift_facts(run: Run) -> Html:
    """How many keypoints the test images have, and how they fill the maps."""
    if not run.keypoints:
        return page.not_run("The keypoints", SCORE)
    sets = list(run.keypoints)
    names = {s: ((run.meta or {}).get("sets") or {}).get(s, {}).get("dataset", s) for s in sets}

    def row(words: str, *keys: str, percent: bool = True) -> list[object]:
        cells: list[object] = [words]
        for name in sets:
            found: Any = run.keypoints[name] if run.keypoints else None
            for key in keys:
                found = (found or {}).get(key)
            if isinstance(found, Mapping):
                times = 100 if percent else 1
                value, lo, hi = (draw.fixed(times * found[k], 1) for k in ("value", "lo", "hi"))
                cells.append(Html(f"{value} <small>[{lo}, {hi}]</small>"))
            else:
                cells.append(found)
        return cells

    rows = [
        row("keypoints an image", "per_image", percent=False),
        row("images without any", "without"),
        row("cells of 4 px that hold one (%)", "occupancy", "4"),
        row("cells of 2 px that hold one (%)", "occupancy", "2"),
        row("keypoints that lose their cell of 4 px (%)", "collisions", "4"),
        row("keypoints that lose their cell of 2 px (%)", "collisions", "2"),
        row("keypoints on another's very point (%)", "same_point"),
        row("keypoints that find no cell of 4 px (%)", "dropped", "4"),
        row("keypoints that find no cell of 2 px (%)", "dropped", "2"),
    ]
    columns = ["of the test images", *(f"{s}: {names[s]}" for s in sets)]
    meta = optional(run.artifacts / "extract" / f"{sets[0]}_test" / "meta.json") or {}
    settings = "; ".join(f"{k} {v}" for k, v in (meta.get("params") or {}).items())
    how = f" OpenCV {meta['cv2']}: {settings}." if meta.get("cv2") else ""
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="What the networks are given (claim C3b). Keypoints on one point, with several "
        f"directions, collide in any map.{how}",
    )


def _layers(rows: Sequence[Row], caption: str) -> Html:
    """Write a network's layers as a table; equal ones that follow each other are one row."""
    cells: list[list[object]] = []
    kinds = {"conv": "conv", "up": "×2, conv", "transposed": "transposed conv"}
    for key, same in groupby(rows, key=lambda row: row[1:]):
        kind, kernel, stride, c_in, c_out, side, weights = key
        times = len(list(same))
        place = len(cells) + 1
        step = f"1/{round(1 / stride)}" if stride < 1 else f"{stride:g}"
        shape = f"{c_out} × {side} × {side}"
        cells.append(
            [place, kinds[kind], f"{kernel} × {kernel}", step, c_in, shape, times, weights]
        )
    heads = ["row", "layer", "kernel", "stride", "channels in", "output", "times", "parameters"]
    frame = pd.DataFrame(cells, columns=heads, dtype=object)
    return page.table(frame, caption=caption)


def _map(channels: int, size: int, d: int) -> torch.Tensor:
    return torch.empty((1, channels, size // d, size // d))


def architecture(run: Run) -> Html:
    """Figs. 2 and 3: the networks as tables, made from the networks themselves."""
    meta = next(
        (
            found
            for stage, name in (("refine", OURS), ("train", "R42_J"), ("train", "R4_J"))
            if (found := optional(run.artifacts / stage / name / "meta.json"))
        ),
        None,
    )
    if meta is None:
        return page.not_run("Figs. 2 and 3", f"{COMMAND}train")
    size, shape = meta["size"], {"width": meta["width"], "channels": meta["channels"]}
    tables: list[tuple[str, Html]] = []

    def add(title: str, net: nn.Module, full: nn.Module, *inputs: object) -> None:
        rows, own = table(net, *inputs), parameters(net)
        said = f"{title}: {len(rows)} convolutions, {own:,} parameters (at the paper's size "
        tables.append((f"{said}{parameters(full):,})", _layers(rows, title)))

    with torch.device("meta"):  # shapes only
        for d in dict.fromkeys(meta["inputs"]):
            side = {4: "left", 2: "right"}[d]
            full = half(d, size=PAPER_SIZE, width=1, channels=PAPER_CHANNELS)
            map_d = _map(meta["channels"], size, d)
            add(f"R, {side} half, map of {d} px", half(d, size=size, **shape), full, map_d)
        image = torch.empty((1, 3, size, size))
        if "ngf" in meta:
            G = FineNet(**{key: meta[key] for key in PAPER_G})
            add("G, added to its input", G, FineNet(**PAPER_G), image)
        if meta.get("adversary"):
            conditional = meta["conditional"]
            D = Discriminator(ndf=meta["ndf"], layers=meta["d_layers"], conditional=conditional)
            full = Discriminator(**PAPER_D, conditional=True)
            add("D, of a pair of images" if conditional else "D", D, full, image, image)
        of = optional(run.artifacts / "train" / BASELINE / "meta.json")
        if of is not None:
            net = Dosovitskiy(size=of["size"], width=of["width"], channels=of["channels"])
            full = Dosovitskiy(size=PAPER_SIZE, width=1, channels=CHANNELS_5)
            add("B5, the baseline", net, full, {4: _map(of["channels"], of["size"], 4)})
    parts = "\n".join(
        f"<details><summary>{page.text(title)}</summary>\n{body}\n</details>"
        for title, body in tables
    )
    said = (
        f"Figs. 2 and 3 as tables, of the networks of this profile at {size} pixels. Descriptors "
        "become the maps F_d; R makes an image of each map and averages them; G refines the "
        "average; D sees R's image and either G's or the original. Stride 1/2: each pixel is "
        "doubled before the convolution. Parameters count the norm that follows."
    )
    return Html(f'<p class="prose">{page.text(said)}</p>\n{parts}')


# ---------------------------------------------------------------- claims and controls


def claims(run: Run) -> Html:
    """All claims with their verdicts, numbers and reasons."""
    return page.claims(run.claims)


def _of_pair(run: Run, question: str, first: str, second: str, metric: str) -> list[object]:
    """Show the difference that a control is about, from the ablation."""
    measure = f"{METRICS[metric][0]}, {second} − {first}"
    rows = [row for axis in (run.ablation or {}).get("axes", []) for row in axis["rows"]]
    effect = next(
        (
            row["effects"][metric]
            for row in rows
            if (row["first"], row["second"]) == (first, second) and metric in row["effects"]
        ),
        None,
    )
    if effect is None:
        return [question, measure, page.chip("not run"), None]
    one, other = (_fixed(effect[k], metric) for k in ("second", "first"))
    word = {True: "better", False: "worse"}.get(effect["better"], "not told apart")
    return [question, measure, _effect({**effect, "better": None}, metric),
            f"{word}: {one} against {other}"]  # fmt: skip


def _of_floor(
    run: Run, question: str, name: str, metric: str, reads: Mapping[str, str], line: float | None
) -> list[object]:
    """Show what an instrument says of a floor; ``reads``: above, below, neither -> words."""
    cell = run.floor(FACES, name, metric)
    measure = f"{METRICS[metric][0]} of {FLOORS[name]}"
    if cell is None:
        return [question, measure, page.chip("not run"), None]
    side = None if line is None else _side(cell, line, line)
    return [question, measure, _with_interval(cell, metric), reads.get(side or "", "")]


def controls(run: Run) -> Html:
    """Show the instruments' own checks, and the controls of the claims."""
    rows: list[list[object]] = [
        _of_pair(run, "Are two scales more than two networks?", "R44_J", "R42_J", "pd"),
        _of_pair(run, "Is the adversary more than G's layers?", "R42_N", "R42_G", "fd"),
        _of_pair(run, "What do size, angle and offset bring the baseline?", "B5_128", "B5", "pd"),
        _of_pair(run, "Does the style term do anything?", "R42_J_nostyle", "R42_J", "chk"),
        _of_pair(run, "Does PSNR reward blur?", "R42_L2", "R42_J", "psnr"),
    ]
    chance = next((row["id1_chance"] for (s, _), row in run.floors.items() if s == FACES), None)
    luck = {
        "above": "above chance, which nothing in it explains: ID1 would be wrong",
        "below": "below chance",
        "not told apart from": "chance, as it must be",
    }
    question = "Does retrieval find what is not in an image?"
    rows.append(_of_floor(run, question, "mean", "id1", luck, chance))
    seen = {
        "above": "of so many the original is found without its colour; the rest takes colour",
        "below": "below chance",
        "not told apart from": "retrieval needs colour, which descriptors do not have",
    }
    question = "Does retrieval depend on colour?"
    rows.append(_of_floor(run, question, "grey", "id1", seen, chance))
    blurred = {
        "below": "seen as blurred",
        "above": "seen as sharpened: SHARP would be wrong",
        "not told apart from": "not seen: SHARP is blind here",
    }
    rows.append(_of_floor(run, "Does SHARP see blur?", "blur", "log_sharp", blurred, 0.0))
    question = "Has a discriminator won outright?"
    of_D = {n: row["collapsed"] for n, row in run.rows.items() if row.get("stage") == "refine"}
    if of_D:
        won = [f"{name}: seed {listed(list(map(str, s)))}" for name, s in of_D.items() if s]
        said = "; ".join(won) or "none"
        rows.append([question, "seeds", sum(map(len, of_D.values())), said])
    else:
        rows.append([question, "seeds", page.chip("not run"), None])
    frame = pd.DataFrame(rows, columns=["question", "measure", "value", "reads"], dtype=object)
    return page.table(
        frame,
        caption="Controls: what the instruments say where the answer is known, and what else could "
        "explain a gain.",
    )


# ---------------------------------------------------------------- sources


def deviations(run: Run) -> Html:
    """Where and why this differs from the paper."""
    of_data = of_scale(run.meta, run.paper["setting"])
    return page.deviations([*of_data, *of_parameters(_settings(run)), *ALWAYS])


def _settings(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return stage -> its parameters, as the stages merge them, without what makes a run."""
    own = section(run.params, f"profiles.{run.profile}.{PAPER}")
    general = run.params.get(PAPER) or {}
    shared = (general.get("shared") or {}) | (own.get("shared") or {})
    return {
        name: shared | (general.get(name) or {}) | (own.get(name) or {})
        for name in STAGES
        if name in own or name in general
    }


def provenance(run: Run, root: Path = Path()) -> Html:
    """List what the page was made from, as far as it is the same on every machine."""
    rows: list[tuple[str, object]] = [("profile", run.profile)]
    sets = (run.meta or {}).get("sets") or {}
    for name, about in sets.items():
        size = (run.meta or {})["size"]
        said = (
            f"{about['dataset']}, {size} px: {about['n_train']:,} train, {about['n_test']:,} test"
        )
        if len(about["classes"]) > 1:
            said += f"; {listed([str(c) for c in about['classes']])}"
        rows += [(name, said), (f"attribution: {name}", str(about["attribution"]))]
    for name in dict.fromkeys(str(about["dataset"]) for about in sets.values()):
        rows += fingerprint(name, root)
    losses = sorted({str(row["phi"]) for row in run.rows.values() if row.get("phi")})
    if losses:
        rows.append(("φ of the joint loss (VGG16)", ", ".join(losses)))
        rows.append(("φ of the measures", "EfficientNet-Lite0, ImageNet weights"))
    facts, parameters = made_of(
        rows,
        PAPER,
        run.profile,
        params=run.params,
        packages=(
            "torch",
            "numpy",
            "scipy",
            "opencv-contrib-python-headless",
            "scikit-image",
            "matplotlib",
            "dvc",
        ),
        over="a run's (variants)",
        root=root,
    )
    return Html(f"{facts}\n{parameters}")
