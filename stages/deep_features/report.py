"""The sections of paper C's report, each a function of what :func:`load` found.

Numbers, and the sentences about them, come from the results of ``score`` and from the stages'
artifacts; what has no result yet is shown as "not run". The notebook only puts the sections in
order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common import report as page
from stages.common.figures import DPI, SCREEN_DPI, save_figure, save_table
from stages.common.paper_report import (
    count,
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
from stages.deep_features import figures as draw
from stages.deep_features.claims import GUESS
from stages.deep_features.deviations import ALWAYS, of_parameters, of_scale
from stages.deep_features.evaluations import FLOORS, LOSSES, MADE
from stages.deep_features.summaries import CONDITIONS, MAIN, MODELS, PLAIN, RETURNS, in_order

PAPER = "deep_features"
STAGES = (
    *("prepare", "train_reid", "extract", "attributes", "reconstruct", "evaluate", "encrypt"),
    *("cryptanalyse", "score"),
)
NAMES = {"bot": "BoT", "agw": "AGW", "sbs": "SBS"}
SETTINGS = {  # of the heads: what they are
    "headline": "one block, weighted classes",
    "blocks2": "two blocks",
    "blocks3": "three blocks",
    "unweighted": "one block, classes unweighted",
    "cross": "trained on the other local set",
    "permuted": "control: trained on permuted labels",
    "noise": "control: noise in place of features",
}
UNDER = {  # condition of Sec. III-D -> what it is
    "headline": "plain features",
    "right": "encrypted, right key",
    "wrong": "encrypted, wrong keys",
    "popcount": "no key: numbers of ones, a key a float",
    "own": "trained and tested under one key",
    "unattacked": "plain, of the attacked images",
    "attacked": "attacked, a key an image",
}
MADE_BY = {  # what an image was made by
    "pixel": "pixel loss",
    "fr": "feature loss",
    "fr_adv": "feature loss and adversary",
    "pixel_equal": "pixel loss, as many updates as fr_adv",
    "fr_equal": "feature loss, as many updates as fr_adv",
    "same": "the image itself",
    "floor": "the image as a JPEG file",
    "other": "the image of another person",
    "mean": "mean training image",
    "blank": "grey",
}
ATTACKS = {
    "hungarian": "marginals of the bits, assigned",
    "profile": "profiles over the dimensions, assigned",
    "control-aes_gcm": "control: AES-GCM",
    "control-xor": "control: XOR with a ChaCha20 stream",
    "control-mean": "control: no ciphertext, the mean of own features",
    "control-iid": "control: features without structure",
}
METRICS = {"distance": 3, "psnr": 1, "ssim": 3, "hf": 4, "peak": 2}  # measure -> decimals
HEADS = {
    "distance": "d ↓",
    "psnr": "PSNR (dB) ↑",
    "ssim": "SSIM ↑",
    "hf": "HF",
    "peak": "peaks",
}
SHOWN = 8  # images of a grid, at most
LINES_DPI = 5 * SCREEN_DPI // 4  # ours: figures of many lines would fill half of the page
GRID_LIMIT_BYTES = 140_000  # of a grid of images in the page; ours: keeps it below 1 MB
COMMAND = f"dvc repro stages/{PAPER}/dvc.yaml:"
SCORE = f"{COMMAND}score"


@dataclass(frozen=True)
class Run:
    """What exists of one profile; missing results are None or empty.

    cells : name of a cell -> its row of table.json.
    attacked : name of a cell -> its row of attacks.json.
    networks : model -> meta.json of its black box.
    """

    profile: str
    figures: Path
    artifacts: Path
    params: Mapping[str, Any]
    paper: Mapping[str, Any]
    meta: Mapping[str, Any] | None
    table: Mapping[str, Any] | None
    iiid: Mapping[str, Any] | None
    attacks: Mapping[str, Any] | None
    keyspace: Mapping[str, Any] | None
    networks: Mapping[str, Mapping[str, Any]]
    cells: Mapping[str, Mapping[str, Any]]
    attacked: Mapping[str, Mapping[str, Any]]
    claims: list[Mapping[str, Any]]

    def verdict(self, claim: str) -> str:
        """Return the verdict on a claim; "not run" if it was not judged."""
        return verdict_of(self.claims, claim)

    @property
    def seeds(self) -> int:
        """Training seeds."""
        means = [of["mean"] for c in self.cells.values() for of in c["settings"].values()]
        return max((len(mean["seeds"]) for mean in means), default=0)

    def row(self, cell: str, condition: str) -> Mapping[str, Any] | None:
        """Return a cell's row of iiid.json."""
        rows = (self.iiid or {}).get("rows", [])
        return next((r for r in rows if (r["cell"], r["condition"]) == (cell, condition)), None)

    def real(self, image_set: str) -> bool:
        """Say whether a set shows real people."""
        about = ((self.meta or {}).get("sets") or {}).get(image_set) or {}
        return bool(about.get("real", True))


def load(profile: str, figures: Path, root: Path = Path()) -> Run:
    """Collect the paper's parameters, claims and results of ``profile`` below ``root``.

    Raises
    ------
    InputError
        If params.yaml has no such profile, or a file that exists cannot be read.
    """
    params, artifacts, folder, paper, claims = sources(PAPER, profile, root)
    table, attacks = optional(folder / "table.json"), optional(folder / "attacks.json")
    models = in_order(list((table or {}).get("models", MODELS)), MODELS)
    nets = {model: optional(artifacts / "train_reid" / model / "meta.json") for model in models}
    return Run(
        profile=profile,
        figures=figures,
        artifacts=artifacts,
        params=params,
        paper=paper,
        meta=optional(artifacts / "prepare" / "meta.json"),
        table=table,
        iiid=optional(folder / "iiid.json"),
        attacks=attacks,
        keyspace=optional(folder / "keyspace.json"),
        networks={model: net for model, net in nets.items() if net},
        cells={cell["name"]: cell for cell in (table or {}).get("cells", [])},
        attacked={cell["cell"]: cell for cell in (attacks or {}).get("cells", [])},
        claims=claims,
    )


# ---------------------------------------------------------------- words


def _prose(*sentences: str) -> Html:
    return Html(f'<p class="prose">{" ".join(page.text(s) for s in sentences)}</p>')


def _model(cell: str) -> str:
    name = cell.partition("-")[0]
    return NAMES.get(name, name)


def _set(cell: str) -> str:
    return cell.partition("-")[2]


def _places(cell: str) -> str:
    return f"{_model(cell)} on {_set(cell)}"


def _value(of: Mapping[str, Any] | None, places: int) -> str:
    return page.NOTHING if of is None else draw.fixed(of["value"], places)


def _with_interval(of: Mapping[str, Any] | None, places: int) -> Html | None:
    if of is None:
        return None
    lo, hi = (draw.fixed(of[key], places) for key in ("lo", "hi"))
    return Html(f"{_value(of, places)} <small>[{lo}, {hi}]</small>")


def _saved(run: Run, records: Sequence[Mapping[str, object]], name: str) -> str:
    """Write the numbers behind a table and return the file's relative address."""
    csv = save_table(pd.DataFrame(list(records)), run.figures / f"{name}.csv")
    return f"{run.figures.name}/{csv.name}"


def _plain(head: Mapping[str, object], **values: Mapping[str, Any] | None) -> dict[str, object]:
    """Return a record of a CSV: the head, and each estimate with its interval."""
    record = dict(head)
    for name, of in values.items():
        found = of or {}
        record |= {name: found.get("value"), f"{name} lo": found.get("lo")}
        record |= {f"{name} hi": found.get("hi")}
    return record


# ---------------------------------------------------------------- finding


def _main(run: Run, cell: str, measure: str = "cos", name: str = MAIN) -> Mapping[str, Any] | None:
    """Return the median of a measure of the main attack, or of another one, on a cell."""
    attack = run.attacked.get(cell, {}).get("attacks", {}).get(name)
    return attack["measures"].get(measure) if attack else None


def _span(values: Sequence[float], places: int) -> str:
    """Write the least and the largest of some numbers, or one of them if both look the same."""
    low, high = draw.fixed(min(values), places), draw.fixed(max(values), places)
    return low if low == high else f"{low} to {high}"


def _medians(run: Run, measure: str, name: str) -> list[float]:
    """Return a measure of an attack in every cell that has it."""
    found = (_main(run, cell, measure, name) for cell in run.attacked)
    return [of["value"] for of in found if of]


def _cosines(run: Run) -> Html:
    """Say what one encrypted request gives away, black box by black box."""
    said = []
    for model in in_order(list({c.partition("-")[0] for c in run.attacked}), MODELS):
        own = [c for c in run.attacked if c.partition("-")[0] == model and _main(run, c)]
        values = [
            f"{_value(_main(run, c), 3)}{f' ({_set(c)})' if len(own) > 1 else ''}" for c in own
        ]
        if values:
            said.append(f"{listed(values)} for {NAMES.get(model, model)}")
    if not said:
        return Html("ShuffleBits was not attacked yet.")
    sentences = [
        "From one encrypted request, a single feature vector under a key of its own, an attack "
        "that sees nothing but the ciphertext and features of its own recovers the black box's "
        f"real features with a median cosine of {listed(said)}; 1 is perfect."
    ]
    guess, centred = _medians(run, "cos", GUESS), _medians(run, "centred", MAIN)
    if guess:
        sentences.append(
            "Features are alike: the mean of the adversary's own, a guess without any ciphertext, "
            f"already has {_span(guess, 3)}."
        )
    if not centred:
        return sentence(" ".join(sentences))
    sentences.append(
        "With that mean subtracted from the recovered and the true features, the median cosine is "
        f"{_span(centred, 3)}, that of the guess 0"
    )
    return sentence(" ".join(sentences), judged(run.claims, "C15"), ".")


def _returns(run: Run) -> list[Html]:
    """Answer whether attribute accuracy returns to its plain value."""
    known = {cell: of["attributes"] for cell, of in run.attacked.items() if of.get("attributes")}
    if not known:
        return [Html("What the recovered features are worth was not measured yet.")]
    groups = {
        word: [c for c, of in known.items() if of["returns"] == word]
        for word in ("yes", "no", "open")
    }
    words = {
        "yes": "Attribute accuracy returns to its plain value",
        "no": "Attribute accuracy does not return to its plain value",
        "open": "Whether attribute accuracy returns to its plain value stays open",
    }
    said = []
    for word, cells in groups.items():
        if not cells:
            continue
        numbers = [
            f"{_value(known[c]['attacked'], 3)} against {_value(known[c]['plain'], 3)} "
            f"({_places(c)})"
            for c in cells
        ]
        where = (
            "in every case"
            if len(cells) == len(known)
            else f"in {len(cells)} of {len(known)} cases"
        )
        lead = f"{words[word]} {where}: mean balanced accuracy " if len(known) > 1 else (
            f"{words[word]}: mean balanced accuracy "
        )  # fmt: skip
        said.append(Html(page.text(f"{lead}{listed(numbers)}.")))
    same = [of["same"] for of in known.values()]
    low, high = (draw.fixed(100 * f(same), 1) for f in (min, max))
    share = f"{low} %" if low == high else f"{low} to {high} %"
    said.append(Html(page.text(f"Of all predictions {share} are those from the plain features.")))
    return said


def _elsewhere(run: Run) -> list[Html]:
    """Say what the other parts of the paper came to, in a sentence each."""
    said: list[Html] = []
    tasks = [of for cell in run.cells.values() for of in cell["tasks"].values()]
    if tasks:
        above = sum(of["ba"]["lo"] > of["chance"] for of in tasks)
        values = _span([cell["settings"][PLAIN]["mean"]["value"] for cell in run.cells.values()
                       if PLAIN in cell["settings"]], 3)  # fmt: skip
        said.append(
            sentence(
                f"Attributes (Fig. 3): mean balanced accuracy {values}; of {len(tasks)} bars "
                f"{above} lie above guessing with their whole interval",
                judged(run.claims, "C1"),
                ".",
            )
        )
    drawn = [c for c, of in run.cells.items() if "fr_adv" in of["reconstructions"]]
    for cell in drawn[:2]:
        made = run.cells[cell]["reconstructions"]
        names = {**{loss: loss for loss in LOSSES}, "floor": "the image itself as JPEG",
                 "other": "another person's image", "mean": "the mean training image"}  # fmt: skip
        numbers = [f"{words} {_value(made[name].get('distance'), 3)}"
                   for name, words in names.items() if name in made]  # fmt: skip
        said.append(
            sentence(
                f"Images (Fig. 4), {_places(cell)}, mean cosine distance: {', '.join(numbers)}",
                judged(run.claims, "C4"),
                ".",
            )
        )
    wrong = [r for c in run.cells if (r := run.row(c, "wrong"))]
    ones = [r for c in run.cells if (r := run.row(c, "popcount"))]
    if wrong and ones:
        excess = [_span([100 * (r["mean"]["value"] - r["chance"]) for r in rows], 1)
                  for rows in (wrong, ones)]  # fmt: skip
        said.append(
            sentence(
                f"Under wrong keys heads are {excess[0]} points from guessing",
                judged(run.claims, "C12"),
                f"; without any key, numbers of ones alone give {excess[1]} points",
                judged(run.claims, "C13"),
                ".",
            )
        )
    controls = []
    for name, words in (("control-aes_gcm", "AES-GCM"), ("control-xor", "a ChaCha20 stream")):
        found = _medians(run, "centred", name)
        if found:
            controls.append(f"{_span(found, 3)} under {words}")
    if controls:
        said.append(
            sentence(
                "On ciphertexts that tell nothing the same attack has a median centred cosine, "
                f"less the adversary's mean, of {listed(controls)}",
                judged(run.claims, "C17"),
                ".",
            )
        )
    return said


def _scale(run: Run) -> list[str]:
    """Say on what the page rests, and what is missing."""
    if not run.cells or run.meta is None:
        return [f"Profile {run.profile} has no results yet."]
    sets = [
        f"{of['n']:,} test images of {of['ids']:,} persons ({name})"
        for name in run.meta["locals"]
        if (of := (run.table or {}).get("sets", {}).get(name))
    ]
    dims = sorted({int(net["dims"]) for net in run.networks.values() if "dims" in net})
    size = f" of {listed([str(d) for d in dims])} dimensions" if dims else ""
    said = [
        f"Judged on features{size} of {listed(sets)}, {run.meta['height']} × {run.meta['width']} "
        f"pixels, with {count(run.seeds, 'seed')} (profile {run.profile})."
    ]
    if not any(run.real(name) for name in run.meta["locals"]):
        said.append("The persons are drawn figures, none is real.")
    if run.seeds == 1:
        said.append(
            "One seed cannot tell a method from luck: claims on trained networks stay open."
        )
    lost = (run.table or {}).get("missing", [])
    if lost:
        said.append(f"Not run: {listed(lost)}.")
    return said


def finding(run: Run) -> Html:
    """Answer the paper's question in one paragraph, computed from the results; then verdicts."""
    verdicts = [str(c.get("verdict") or "not run") for c in run.claims]
    answer, details = [_cosines(run), *_returns(run)], _elsewhere(run)
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


# ---------------------------------------------------------------- attributes


def fig3(run: Run) -> Html:
    """Fig. 3: balanced accuracy of every attribute."""
    drawn = draw.accuracy_bars(run.table) if run.table else None
    if drawn is None:
        return page.not_run("Fig. 3", f"{COMMAND}attributes")
    figure, table = drawn
    path = save_figure(figure, run.figures / "fig3.png", table)
    best, least = (table.loc[at] for at in (table.ba.idxmax(), table.ba.idxmin()))
    means = [
        f"{NAMES.get(str(m), str(m))} {draw.fixed(of.ba.mean(), 2)}"
        for m, of in table.groupby("model", sort=False)
    ]
    size = f"{run.meta['height']} × {run.meta['width']} pixels" if run.meta else ""
    return page.figure(
        path,
        alt=f"Balanced accuracy of {table.attribute.nunique()} attributes, mean {listed(means)}; "
        f"from {draw.fixed(least.ba, 2)} ({least.attribute}, guessing "
        f"{draw.fixed(least.chance, 2)}) to {draw.fixed(best.ba, 2)} ({best.attribute}, guessing "
        f"{draw.fixed(best.chance, 2)})",
        caption=f"Fig. 3. Balanced accuracy on test identities, {size}; last epoch. Whiskers: "
        "95 % intervals over identities and seeds. Black line: guessing, 1 / K of the K classes "
        "that occur in test. Pale band: identities with permuted labels. The file has the figure "
        "for classes of at least five test identities, too.",
        dpi=DPI,
    )


def heads(run: Run) -> Html:
    """Mean balanced accuracy of every kind of heads."""
    if not any(cell["settings"] for cell in run.cells.values()):
        return page.not_run("The heads", f"{COMMAND}attributes")
    rows: list[list[object]] = []
    records = []
    for name, cell in run.cells.items():
        if not cell["settings"]:
            continue
        means = {s: of["mean"] for s, of in cell["settings"].items()}
        chance = cell["settings"].get(PLAIN, {}).get("chance")
        best = [of["best"]["value"] for of in cell["tasks"].values() if of["best"]]
        selected = draw.fixed(sum(best) / len(best), 3) if best else None
        shown = [_with_interval(means.get(s), 3) for s in SETTINGS]
        rows.append([_places(name), *shown, selected,
                     None if chance is None else draw.fixed(chance, 3)])  # fmt: skip
        records.append(
            _plain({"cell": name, "chance": chance}, **{s: means.get(s) for s in SETTINGS})
        )
    columns = ["", *SETTINGS.values(), "one block, best epoch on test", "guessing"]
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="Balanced accuracy, mean over attributes, with 95 % intervals (claims C1 to C3). "
        "The best epoch on test is the released code's choice. Controls must lie at guessing; of "
        "the other set only the attributes that both share.",
        csv=_saved(run, records, "heads"),
    )


def _networks(run: Run) -> str:
    """Say what the black boxes are."""
    found = sorted({(str(of.get("net")), of.get("dims")) for of in run.networks.values()}, key=str)
    names = {"resnet50": "ResNet50"}
    return "; ".join(f"{names.get(net, net)} with {dims:,} features" for net, dims in found if dims)


def reid(run: Run) -> Html:
    """How well the black boxes re-identify, beside FastReID's on MSMT17."""
    rows_of = (run.table or {}).get("reid", [])
    if not rows_of:
        return page.not_run("Re-identification", f"{COMMAND}extract")
    metrics, nets = ("rank1", "mAP", "mINP"), _networks(run)
    ours = f"{nets or 'another network'} trained on {(run.meta or {}).get('proprietary', '?')}"
    zoo = (run.table or {}).get("zoo", {})
    rows: list[list[object]] = []
    records = []
    for row in rows_of:
        shown = [_with_interval(row[m], 1) for m in metrics]
        rows.append([NAMES.get(row["model"], row["model"]), row["set"], row["n"], *shown])
        records.append(
            _plain({"model": row["model"], "set": row["set"]}, **{m: row[m] for m in metrics})
        )
    quiet = []
    for model, values in zoo.items():
        quiet.append(len(rows))
        shown = [draw.fixed(values[m], 1) for m in metrics]
        rows.append([NAMES.get(model, model), "MSMT17, FastReID's zoo", None, *shown])
    columns = ["black box", "set", "queries", "rank-1 (%) ↑", "mAP (%) ↑", "mINP (%) ↑"]
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="Re-identification by the black boxes, same-camera matches left out, with 95 % "
        f"intervals; ours: {ours}. Faint: FastReID v1.0.0's model zoo, ResNet50 trained on MSMT17; "
        "an outside reference, not a target.",
        row_heads=2,
        quiet=quiet,
        csv=_saved(run, records, "reid"),
    )


# ---------------------------------------------------------------- reconstructions


def _allowed(run: Run, image_set: str) -> bool:
    """Say whether images of a set may be printed: drawn ones, or if the parameters allow it."""
    settings = _settings(run)
    wanted = [of.get("allow_real_grids") for of in settings.values() if "allow_real_grids" in of]
    return not run.real(image_set) or any(wanted)


def _one_a_set(run: Run, cells: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    for cell in in_order(list(cells), list(run.cells)):
        first.setdefault(_set(cell), cell)
    return list(first.values())


def _hidden(name: str) -> Html:
    return Html(
        f'<p class="note">Images of {page.text(name)} show real people and are not printed.</p>'
    )


def _grid(
    run: Run, name: str, make: Callable[[int], draw.Drawn | None], *, alt: str, caption: str
) -> Html | None:
    """Show a grid with as many images as the page has room for; None if there is none.

    Parameters
    ----------
    make : draws the grid with at most so many images.
    """
    wanted = SHOWN
    while True:
        found = make(wanted)
        if found is None:
            return None
        path = save_figure(found[0], run.figures / f"{name}.png", found[1])
        shown = page.figure(path, alt=alt, caption=caption, wide=True, dpi=SCREEN_DPI)
        wanted = found[1].image.nunique() - 1  # fewer, if these take too much of the page
        if len(shown) <= GRID_LIMIT_BYTES or wanted == 0:
            return shown


def fig4(run: Run) -> Html:
    """Fig. 4: images reconstructed from features, by three losses."""
    drawn = [c for c, of in run.cells.items() if "fr_adv" in of["reconstructions"]]
    parts: list[Html | None] = []
    for cell in _one_a_set(run, drawn):
        image_set = _set(cell)
        if not _allowed(run, image_set):
            parts.append(_hidden(image_set))
            continue
        made = run.cells[cell]["reconstructions"]
        means = [f"{name} {_value(made[name]['distance'], 3)}"
                 for name in (*LOSSES, "other", "mean") if name in made]  # fmt: skip
        height, width = (run.meta or {}).get("height"), (run.meta or {}).get("width")
        credit = ((run.table or {}).get("sets") or {}).get(image_set, {}).get("attribution")
        parts.append(
            _grid(
                run,
                f"fig4-{cell}",
                lambda wanted, cell=cell: draw.reconstruction_grid(
                    run.artifacts, cell, wanted=wanted
                ),
                alt=f"Test images of {image_set} and their reconstructions from {_model(cell)}'s "
                f"features by three losses; mean cosine distance {listed(means)}",
                caption=f"Fig. 4, {_places(cell)}, {height} × {width} pixels. Below an image: the "
                "cosine distance d of its features to the original's. Mean over all test images: "
                f"{', '.join(means)}; other is the image of another person, mean the mean "
                "training image. The first images of "
                f"the panel, by a rule; first seed. Images: {credit}",
            )
        )
    shown = [part for part in parts if part is not None]
    return Html("\n".join(shown)) if shown else page.not_run("Fig. 4", f"{COMMAND}evaluate")


def reconstructions(run: Run) -> Html:
    """Distances and looks of all reconstructions and floors."""
    rows: list[list[object]] = []
    records, quiet, rules = [], [], []
    for name, cell in run.cells.items():
        made = cell["reconstructions"]
        if not made:
            continue
        rules.append(len(rows))
        for kind in (*MADE, *FLOORS):
            if kind not in made:
                continue
            if kind in FLOORS:
                quiet.append(len(rows))
            of, recipe = made[kind], cell["recipes"].get(kind, {})
            shown = [_with_interval(of.get(m), places) for m, places in METRICS.items()]
            updates = recipe.get("updates_g")
            rows.append([_places(name), MADE_BY[kind], updates, *shown])
            records.append(_plain({"cell": name, "made by": kind, "updates of G": updates}, **of))
    if not rows:
        return page.not_run("The reconstructions", f"{COMMAND}evaluate")
    original = [cell["original"] for cell in run.cells.values() if cell["original"]]
    fine = listed([draw.fixed(of["hf"], 4) for of in original])
    columns = ["", "made by", "updates of G", *HEADS.values()]
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="Images made from features, with 95 % intervals (claims C4 to C6). d: 1 − cosine "
        "of the features, seen by the black box again. HF: share of luma energy above 0.25 cycles "
        f"a pixel; of the originals {fine}. Peaks: log10 of the spectrum at periods of 2, 4 and 8 "
        "pixels over its background. Faint: floors that use no features.",
        row_heads=2,
        quiet=quiet,
        rules=rules[1:],
        csv=_saved(run, records, "reconstructions"),
    )


# ---------------------------------------------------------------- the cipher


def fig2(run: Run) -> Html:
    """Fig. 2: one float, shuffled and put back, bit by bit."""
    drawn = draw.worked_example((run.keyspace or {}).get("example"))
    if drawn is None:
        return page.not_run("Fig. 2", SCORE)
    drawn[0].set_dpi(LINES_DPI)
    path = save_figure(drawn[0], run.figures / "fig2.png", drawn[1])
    items = (run.keyspace or {})["example"]["items"]
    said = "; ".join(
        f"{item['name']}: {item['plain']} becomes {item['cipher']} and again {item['decrypted']}"
        for item in items
    )
    return page.figure(
        path,
        alt=f"The bits of {items[0]['value']:.7g}, the highest first. {said}",
        caption="Fig. 2 as a worked example: 32 bits of a float, the highest on the left, moved by "
        "a key and back by its inverse. A key is the same for all floats of a request: so a bit is "
        "as often 1 as before, in another place.",
        dpi=LINES_DPI,
    )


def keyspace(run: Run) -> Html:
    """How many keys there are, exactly."""
    if run.keyspace is None:
        return page.not_run("The key space", SCORE)
    what = {8: "int8", 16: "binary16, bfloat16", 32: "binary32", 64: "binary64"}
    rows: list[list[object]] = []
    for of in run.keyspace["widths"]:
        w = of["width"]
        digits = of["keys"]
        shown = f"{int(digits):,}" if len(digits) < 10 else f"{float(digits):.3e}"
        rows.append([f"{w}!", what[w], shown, draw.fixed(of["log2"], 2)])
    few = run.keyspace["effective"]
    rows.append(["32! / 23!", "binary32, sign and exponent only", f"{float(few['keys']):.3e}",
                 draw.fixed(few["log2"], 2)])  # fmt: skip
    records = [{"width": of["width"], "keys": of["keys"], "log2": of["log2"]}
               for of in run.keyspace["widths"]]  # fmt: skip
    records.append({"width": "32! / 23!", "keys": few["keys"], "log2": few["log2"]})
    widths = {of["width"]: of["keys"] for of in run.keyspace["widths"]}
    printed = next(
        (c["paper"] for c in run.paper.get("cells", []) if c["id"] == "key/space32"), None
    )
    beside = "" if printed is None else f"; the paper prints {printed:.3g}"
    return page.table(
        pd.DataFrame(rows, columns=["keys", "of", "number", "log2, bits"], dtype=object),
        caption=f"Key space, exact (claim C9): 32! is {int(widths[32]):,}{beside}. The mantissa is "
        "nearly irrelevant to a cosine, so that the last row is what a search must cover; none of "
        "them matters to the attack below, which searches no keys blindly.",
        csv=_saved(run, records, "keyspace"),
    )


def iiid(run: Run) -> Html:
    """Sec. III-D as a table: threat models on encrypted features."""
    rows_of = (run.iiid or {}).get("rows", [])
    if not rows_of:
        return page.not_run("The table of Sec. III-D", f"{COMMAND}encrypt")
    known = {t for row in rows_of for t in row["tasks"]}
    sets = (run.table or {}).get("sets", {}).values()
    names = [t for t in dict.fromkeys(t["name"] for of in sets for t in of["tasks"]) if t in known]
    rows: list[list[object]] = []
    records, rules = [], []
    for cell in dict.fromkeys(row["cell"] for row in rows_of):
        rules.append(len(rows))
        for condition in CONDITIONS:
            row = run.row(cell, condition)
            if row is None:
                continue
            tasks = {t: of["ba"] for t, of in row["tasks"].items()}
            chance = draw.fixed(row["chance"], 3)
            shown = [_value(tasks[t], 2) if t in tasks else None for t in names]
            mean, distance = _with_interval(row["mean"], 3), _with_interval(row["distance"], 3)
            rows.append(
                [_places(cell), UNDER[condition], row["images"], mean, chance, distance, *shown]
            )
            head = {"cell": cell, "condition": condition, "images": row["images"]}
            own = {"mean": row["mean"], "distance": row["distance"], **tasks}
            records.append(_plain({**head, "chance": row["chance"]}, **own))
    heads = [("", "black box"), ("", "features"), ("", "images"), ("", "mean BA"), ("", "guessing")]
    heads += [("", "d of fr_adv ↓"), *(("balanced accuracy of", name) for name in names)]
    keys = (run.iiid or {}).get("keys", 0)
    return page.table(
        pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=object),
        caption="Sec. III-D, run (claims C12 to C14): heads and the reconstruction on encrypted "
        f"features, with 95 % intervals; wrong keys: mean over {keys:,} random ones. The attacked "
        "images are fewer, so their plain value stands above them. The paper states this without "
        "an experiment.",
        row_heads=2,
        rules=rules[1:],
        csv=_saved(run, records, "iiid"),
    )


def ciphertexts(run: Run) -> Html:
    """Show what every key leaves: numbers of ones, distances between ciphertexts, weak keys."""
    if not run.iiid or not run.iiid["weak"]:
        return page.not_run("What ciphertexts show", f"{COMMAND}encrypt")
    rows: list[list[object]] = []
    records: list[dict[str, object]] = []
    pairs, all_ones, all_nan = (
        {row["cell"]: {k: v for k, v in row.items() if k != "cell"} for row in run.iiid[key]}
        for key in ("retrieval", "ones", "nan")
    )
    for weak in run.iiid["weak"]:
        cell = weak["cell"]
        pair, ones, nan = pairs.get(cell, {}), all_ones.get(cell), all_nan[cell]
        told = None
        if ones:
            told = f"{draw.fixed(ones['mutual'], 2)} of {draw.fixed(ones['leading'], 2)}"
        ranks = [pair.get(key) for key in ("plain", "hamming")]
        rows.append(
            [
                _places(cell),
                *(None if r is None else draw.fixed(100 * r["value"], 1) for r in ranks),
                None if ones is None else draw.fixed(ones["popcount"], 2),
                told,
                *(draw.fixed(weak[key], 3) for key in ("median", "q95", "max")),
                draw.fixed(100 * weak["share"], 1),
                *(draw.fixed(100 * nan[key], 2) for key in ("mean", "max")),
            ]
        )
        records.append(
            {
                "cell": cell,
                **{f"rank-1 {k}": (pair.get(k) or {}).get("value") for k in ("plain", "hamming")},
                **(ones or {}),
                **{
                    f"|cosine| {key}": weak[key]
                    for key in ("median", "q95", "max", "share", "keys")
                },
                **{f"NaN {key}": value for key, value in nan.items()},
            }
        )
    limit = draw.fixed(run.iiid["weak"][0]["limit"], 2)
    heads = [("", "black box")]
    heads += [("rank-1 (%)", name) for name in ("plain, cosine", "one key, Hamming")]
    heads += [("number of ones (bits)", name) for name in ("entropy", "of sign and exponent")]
    heads += [("|cosine| a random key leaves", name) for name in ("median", "95 %", "most")]
    heads += [("|cosine| a random key leaves", f"keys ≥ {limit} (%)")]
    heads += [("NaN as floats (%)", name) for name in ("mean", "most")]
    return page.table(
        pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=object),
        caption="What needs no attack (claims C11, C12). Every key keeps the number of ones of a "
        "float, and one key keeps Hamming distances: retrieval works on ciphertexts. A random key "
        "may leave the sign in place, or nearly all. A ciphertext that passes through floats may "
        "be NaN and lose bits.",
        csv=_saved(run, records, "ciphertexts"),
    )


# ---------------------------------------------------------------- the attack


def attack_curves(run: Run) -> Html:
    """Draw the recovered centred cosine against what the adversary has."""
    drawn = draw.attack_curves(run.attacks, run.iiid) if run.attacks else None
    if drawn is None:
        return page.not_run("The attack's curves", f"{COMMAND}cryptanalyse")
    drawn[0].set_dpi(LINES_DPI)
    path = save_figure(drawn[0], run.figures / "attack_curves.png", drawn[1])
    table = drawn[1]
    one = table.query("attack == @MAIN")
    words = [
        f"{_places(str(cell))} {draw.fixed(float(cosine), 3)}"
        for cell, cosine in zip(one.cell, one.centred, strict=True)
    ]
    known = table.query("curve == 'known floats'")
    least = known.assign(K=known.x.astype(int)).groupby("K").centred.min()
    floats = [f"{draw.fixed(float(v), 2)} for {k}" for k, v in least.items()]
    most = f"; of known floats the least median is {listed(floats)}" if floats else ""
    return page.figure(
        path,
        alt="Median centred cosine of recovered and true features from one vector: "
        f"{listed(words) if words else 'not attacked'}"
        f"{most}; the other curves are in the CSV",
        caption="Ciphertext-only attack: median cosine of recovered and true features, both less "
        "the mean of the adversary's own, over requests, each under a key of its own, against the "
        "vectors in a request, the adversary's own features, and floats that are known. A guess "
        "without a ciphertext is at 0. Bottom right, without an attack: how much a "
        "random key leaves. Shades: 95 % intervals.",
        dpi=LINES_DPI,
    )


def _attack_name(name: str) -> str:
    blind, known = draw.CIPHERTEXT_ONLY.fullmatch(name), draw.KNOWN.fullmatch(name)
    if blind:
        n = int(blind["scope"].removeprefix("img"))
        ref = draw.REFERENCES.get(blind["ref"], blind["ref"])
        return f"{count(n, 'vector')}, reference: {ref}"
    if known:
        return f"{count(int(known['floats']), 'known float')}"
    return ATTACKS.get(name, name)


def attack_table(run: Run) -> Html:
    """Every attack and control in numbers."""
    rows: list[list[object]] = []
    records: list[dict[str, object]] = []
    quiet, rules = [], []
    order = [MAIN, "co-same", "co-", "hungarian", "profile", "kpa", "control"]
    for cell, of in run.attacked.items():
        rules.append(len(rows))
        ranked = sorted(
            of["attacks"],
            key=lambda name: next(i for i, o in enumerate([*order, ""]) if name.startswith(o)),
        )
        for name in ranked:
            attack = of["attacks"][name]
            m = attack["measures"]
            if name.startswith("control"):
                quiet.append(len(rows))
            shown = [_value(m.get(key), 3) for key in ("sign_ok", "exponent_ok")]
            share = attack.get("share_95")
            rows.append(
                [
                    _places(cell),
                    _attack_name(name),
                    attack["n"],
                    _value(m.get("cos"), 3),
                    _with_interval(m.get("centred"), 3),
                    draw.fixed(attack["q10"], 3) if "q10" in attack else None,
                    draw.fixed(attack["lowest"], 3) if "lowest" in attack else None,
                    None if share is None else draw.fixed(100 * share["value"], 0),
                    *shown,
                    _value(m.get("prefix_bits"), 1),
                ]
            )
            own = {key: m.get(key) for key in ("cos", "centred", "sign_ok", "exponent_ok",
                                              "prefix_bits")}  # fmt: skip
            records.append(_plain({"cell": cell, "attack": name, "requests": attack["n"]}, **own))
    if not rows:
        return page.not_run("The attacks", f"{COMMAND}cryptanalyse")
    columns = ["black box", "attack", "requests", "cosine", "centred", "10 %", "least",
               "above 0.95 (%)", "sign right", "exponent right", "mantissa bits"]  # fmt: skip
    table = page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="All attacks (claims C15, C17): cosine of recovered and true features; centred, "
        "less the mean of the adversary's own, with its interval, its 10 % quantile, its least "
        "value and the share above 0.95; shares of floats whose sign and whole exponent are "
        "right; mantissa bits right from the top. "
        "Medians over requests. Faint: controls that must fail.",
        row_heads=2,
        quiet=quiet,
        rules=rules[1:],
        csv=_saved(run, records, "attacks"),
    )
    return Html(f"<details><summary>All attacks in numbers</summary>\n{table}\n</details>")


def attack_worth(run: Run) -> Html:
    """Show what recovered features are worth: attributes and images."""
    rows: list[list[object]] = []
    records: list[dict[str, object]] = []
    for cell, of in run.attacked.items():
        ba, d = of["attributes"] or {}, of["distance"] or {}
        if not ba and not d:
            continue
        ll = of["ll"]["best"]
        same = None if not ba else draw.fixed(100 * ba["same"], 1)
        rows.append(
            [
                _places(cell),
                ba.get("n"),
                _value(_main(run, cell), 3),
                _with_interval(_main(run, cell, "centred"), 3),
                *(_with_interval(ba.get(key), 3) for key in ("plain", "attacked", "difference")),
                same,
                {"yes": "yes", "no": "no", "open": "open"}.get(ba.get("returns", ""), None),
                *(_with_interval(d.get(key), 3) for key in ("plain", "attacked")),
                _with_interval(ll, 2),
            ]
        )
        own = {f"ba {key}": ba.get(key) for key in ("plain", "attacked", "difference")}
        own |= {f"d {key}": d.get(key) for key in ("plain", "attacked", "difference")}
        records.append(_plain({"cell": cell, "images": ba.get("n"), "same": ba.get("same")}, **own))
    if not rows:
        return page.not_run("What recovered features are worth", f"{COMMAND}cryptanalyse")
    heads = [("", "black box"), ("", "images"), ("", "cosine"), ("", "centred")]
    heads += [("mean balanced accuracy", name) for name in ("plain", "attacked", "difference")]
    heads += [("mean balanced accuracy", "equal predictions (%)")]
    heads += [("mean balanced accuracy", "returns?")]
    heads += [("d of fr_adv ↓", name) for name in ("plain", "attacked")]
    heads += [("", "true key over best random key (nats a float)")]
    return page.table(
        pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(heads), dtype=object),
        caption="What the recovered features are worth, each image attacked alone under a key of "
        f"its own; 95 % intervals. Cosine: median over requests; centred: less the mean of the "
        "adversary's own features. It returns: the interval of the difference and every seed lie "
        f"above {draw.fixed(-RETURNS, 2)}; open with one seed. Last column (claim C10): "
        "how much likelier the values are under the true key.",
        csv=_saved(run, records, "attack_worth"),
    )


def attack_images(run: Run) -> Html:
    """Images made from plain, wrongly decrypted and attacked features."""
    cell = next((c for c, of in run.attacked.items() if of["distance"]), None)
    if cell is None:
        return page.not_run("Images from attacked features", f"{COMMAND}cryptanalyse")
    if not _allowed(run, _set(cell)):
        return _hidden(_set(cell))
    d = run.attacked[cell]["distance"]
    numbers = f"plain {_value(d['plain'], 3)}, attacked {_value(d['attacked'], 3)}"
    shown = _grid(
        run,
        f"attacked-{cell}",
        lambda wanted: draw.attack_grid(run.artifacts, cell, wanted=wanted),
        alt=f"Test images of {_set(cell)} and what the generator makes of plain features, of "
        f"features under a wrong key, and of attacked ciphertexts; mean cosine distance {numbers}",
        caption=f"{_places(cell)}, fr_adv: from plain features, from ciphertexts under a wrong "
        "key, and from attacked ciphertexts, one vector and one key an image. Below an image: its "
        f"cosine distance d; mean over the attacked images: {numbers}.",
    )
    if shown is None:
        return page.not_run("Images from attacked features", f"{COMMAND}cryptanalyse")
    return shown


def synthetic(run: Run) -> Html:
    """Show the attack on synthetic features, by kind and dimensions."""
    rows_of = (run.attacks or {}).get("synthetic", [])
    if not rows_of:
        return page.not_run("The attack on synthetic features", f"{COMMAND}cryptanalyse")
    what = {
        "bn": "after batch norm, as the black boxes'",
        "gem": "pooled, before it: never negative",
        "sym": "symmetric, low rank: the worst case",
        "l2": "after batch norm, of length 1",
        "iid": "control: without structure",
    }
    dims = sorted({of["dims"] for of in rows_of})
    kinds = list(dict.fromkeys([*what, *(of["kind"] for of in rows_of)]))
    by = {(of["kind"], of["dims"]): of for of in rows_of}
    rows = []
    for kind in kinds:
        if not any((kind, d) in by for d in dims):
            continue
        cells = [by.get((kind, d)) for d in dims]
        rows.append([kind, what.get(kind, ""), *(None if c is None else Html(
            f"{draw.fixed(c['centred'], 3)} <small>[{draw.fixed(c['lowest'], 3)}, "
            f"{draw.fixed(c['highest'], 3)}]</small>") for c in cells)])  # fmt: skip
    columns = ["kind", "features", *(f"D = {d}" for d in dims)]
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="The attack on one vector of synthetic features of D dimensions, whose reference "
        "is of a shifted domain: median centred cosine, less the reference's mean, and in brackets "
        "the least and the most of "
        f"{count(rows_of[0]['n'], 'request')}.",
        row_heads=2,
        csv=_saved(run, rows_of, "synthetic"),
    )


def repair(run: Run) -> Html:
    """Say what would repair it."""
    rows: list[list[object]] = [
        ["one permutation of all bits of a vector", "the number of ones of the whole vector",
         "a discussion only: no attack was tried"],
        ["XOR with a ChaCha20 or AES-CTR stream", "the length",
         "about the same work a word: 62 integer operations against 36 to 128"],
        ["the same with Poly1305 or GCM", "the length",
         "also notices changes; flipped bits of ShuffleBits decrypt to flipped bits"],
    ]  # fmt: skip
    found, measured = _medians(run, "centred", "control-xor"), ""
    if found:
        measured = (
            f" Against the XOR stream the attack's median centred cosine is {_span(found, 3)}; "
            "that of a guess without a ciphertext is 0."
        )
    return page.table(
        pd.DataFrame(rows, columns=["in place of ShuffleBits", "what it still shows", "cost"],
                     dtype=object),
        caption="What would repair it. ShuffleBits fails because a bit keeps its identity across "
        f"all floats of a request.{measured}",
    )  # fmt: skip


# ---------------------------------------------------------------- claims and sources


def claims(run: Run) -> Html:
    """All claims with their verdicts, numbers and reasons."""
    return page.claims(run.claims)


def ethics(run: Run) -> Html:
    """Responsible use, and whose images these are."""
    sets = (run.meta or {}).get("sets") or {}
    real = [name for name, of in sets.items() if of.get("real")]
    data = "All persons on this page are drawn by a program; no image of a real one was used."
    if real:
        data = (
            f"{listed(real)} {'shows' if len(real) == 1 else 'show'} real people; images of them "
            "are printed only if the parameters say so, and features, keys and reconstructions of "
            "them are never stored with the results."
        )
    elif not sets:
        data = "By default all persons are drawn by a program."
    return Html(
        _prose(
            "Responsible use. The attack is published because its lesson is needed: ShuffleBits "
            "must not be relied on, and a standard cipher costs no more. It is evaluated on black "
            "boxes trained here; no weights for recognising persons are shipped.",
        )
        + "\n"
        + _prose(
            data,
            "DukeMTMC was withdrawn by its authors in 2019: it was recorded outdoors and released "
            "outside what the university's review board had approved. It is neither linked nor "
            "mirrored here, and no result needs it. Market-1501 and MSMT17 also show identifiable "
            "people; the latter needs a signed agreement. The attribute files of Market-1501 and "
            "DukeMTMC carry no licence and label individuals; none is included. In place of age "
            "and gender the drawn persons have height and build.",
        )
    )


def _settings(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return stage -> its parameters, as the stages merge them, without what makes a variant."""
    own = section(run.params, f"profiles.{run.profile}.{PAPER}")
    general = run.params.get(PAPER) or {}
    shared = (general.get("shared") or {}) | (own.get("shared") or {})
    return {
        name: shared | (general.get(name) or {}) | (own.get(name) or {})
        for name in STAGES
        if name in own or name in general
    }


def deviations(run: Run) -> Html:
    """Where and why this differs from the paper and its code."""
    cells = list(run.cells.values())
    of_data = of_scale(run.meta, run.networks, cells, run.paper["setting"])
    return page.deviations([*of_data, *of_parameters(_settings(run)), *ALWAYS])


def provenance(run: Run, root: Path = Path()) -> Html:
    """List what the page was made from, as far as it is the same on every machine."""
    rows: list[tuple[str, object]] = [("profile", run.profile)]
    for name, about in ((run.meta or {}).get("sets") or {}).items():
        dropped = ", ".join(f"{n} {why}" for why, n in (about.get("dropped") or {}).items())
        said = (
            f"{about['n_train']:,} images of {about['ids_train']:,} persons to train, "
            f"{about['n_test']:,} of {about['ids_test']:,} to test"
            f"{f'; without labels or left out: {dropped}' if dropped else ''}"
        )
        rows += [(name, said), (f"attribution: {name}", str(about["attribution"]))]
    for model, net in run.networks.items():
        said = ", ".join(f"{key} {net[key]}" for key in ("net", "dims", "input", "non_local_width",
                                                         "parameters") if key in net)  # fmt: skip
        rows.append((f"black box {NAMES.get(model, model)}", said))
    recipes = {
        loss: of for cell in run.cells.values() for loss, of in (cell.get("recipes") or {}).items()
    }
    for loss, of in recipes.items():
        rows.append((f"reconstruction {loss}", ", ".join(f"{k} {v}" for k, v in of.items())))
    checks = (run.keyspace or {}).get("checks")
    if checks:
        said = f"{int(checks['words']):,} random words under {int(checks['keys']):,} random keys"
        rows.append(("self-check of ShuffleBits", said))
    rows.append(("throughput of the ciphers", Html("<code>reports/bench/shufflebits.json</code>")))
    facts, parameters = made_of(
        rows,
        PAPER,
        run.profile,
        params=run.params,
        packages=("torch", "numpy", "scipy", "scikit-learn", "cryptography", "matplotlib", "dvc"),
        over="a black box's (variants)",
        root=root,
    )
    return Html(f"{facts}\n<details><summary>All parameters</summary>\n{parameters}\n</details>")
