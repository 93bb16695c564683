"""The sections of paper D's report, each a function of what :func:`load` found.

Numbers and counts come from the results of ``score`` and ``claims``; what has no result yet is
shown as "not run". The notebook only puts the sections in order.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.colourisation import figures as draw
from stages.colourisation.deviations import ALWAYS, of_parameters, of_scale
from stages.common import report as page
from stages.common.figures import DPI, SCREEN_DPI, save_figure, save_table
from stages.common.paper_report import (
    count,
    fingerprint,
    links,
    listed,
    made_of,
    optional,
    sources,
)
from stages.common.params import section
from stages.common.report import Html

PAPER = "colourisation"
METRICS = {"l1": "L1 (ab units)", "psnr": "PSNR (dB)", "lperc": "L_perc"}
OURS, DEVIATION = "ours [95 % CI]", "deviation, verdict"
DECIMALS = {"l1": 2, "psnr": 2, "lperc": 2}  # as printed in Table I
BASELINES = {
    "grey": "grey image",
    "mean_ab": "mean colour of the training images",
    "random_hue": "true chroma, random hue",
    "half_chroma": "half the true chroma",
    "other_image": "colour of another image",
    "bn_saturated": "bn, as colourful as the real",
}
DISTANCES = {
    "dhist_a": "area a",
    "dhist_b": "area b",
    "overlap_a": "overlap a",
    "overlap_b": "overlap b",
    "js_a": "JS a",
    "js_b": "JS b",
    "w1_a": "W1 a",
    "w1_b": "W1 b",
    "js_2d": "JS ab",
    "chroma_ratio": "chroma / real",
    "m3_ratio": "M3 / real",
    "hf_ratio": "detail / real",
    "kid": "KID",
}


@dataclass(frozen=True)
class Run:
    """What exists of one profile; missing results are None or absent."""

    profile: str
    figures: Path
    artifacts: Path
    params: Mapping[str, Any]
    paper: Mapping[str, Any]
    variants: list[str]
    meta: Mapping[str, Any] | None
    results: Mapping[str, Mapping[str, Any]]
    baselines: Mapping[str, Mapping[str, Any]]
    table1: Mapping[str, Any] | None
    claims: list[Mapping[str, Any]]

    @property
    def n(self) -> int | None:
        return next((r["n"] for r in self.results.values() if "n" in r), None)

    @property
    def seeds(self) -> int | None:
        return max((r["seeds"] for r in self.results.values() if "seeds" in r), default=None)


def load(profile: str, figures: Path, root: Path = Path()) -> Run:
    """Collect the paper's parameters, claims and results of ``profile`` below ``root``.

    Raises
    ------
    InputError
        If params.yaml has no such profile, or a file that exists cannot be read.
    """
    params, artifacts, folder, paper, claims = sources(PAPER, profile, root)
    variants = [str(v) for v in section(params, f"{PAPER}.variants", root / "params.yaml")]
    table1 = optional(folder / "table1.json")
    found = {name: optional(folder / f"{name}.json") for name in variants}
    names = [*BASELINES, *(str(b["name"]) for b in (table1 or {}).get("baselines", []))]
    trivial = {name: optional(folder / f"baseline_{name}.json") for name in dict.fromkeys(names)}
    for row in (table1 or {}).get("baselines", []):
        trivial[row["name"]] = row | (trivial[row["name"]] or {})
    return Run(
        profile=profile,
        figures=figures,
        artifacts=artifacts,
        params=params,
        paper=paper,
        variants=variants,
        meta=optional(artifacts / "prepare" / "meta.json"),
        results={name: result for name, result in found.items() if result},
        baselines={name: result for name, result in trivial.items() if result},
        table1=table1,
        claims=claims,
    )


def finding(run: Run) -> Html:
    """Say in one paragraph what came out: computed from the results, nothing typed by hand."""
    verdicts = [str(c.get("verdict") or "not run") for c in run.claims]
    sentences = []
    if run.meta and run.n and run.seeds:
        sentences.append(
            f"{count(len(run.results), 'variant')} of the network were trained on "
            f"{run.meta['n_train']:,} images of {run.meta['dataset']} at {run.meta['size']} pixels "
            f"with {count(run.seeds, 'seed')} each, and judged on {run.n:,} test images "
            f"(profile {run.profile})."
        )
    else:
        sentences.append(f"Profile {run.profile} has no results yet.")
    counts = [
        f"{verdicts.count(verdict)} {verdict}" for verdict in page.VERDICTS if verdict in verdicts
    ]
    sentences.append(f"Of {count(len(verdicts), 'claim')}, {listed(counts)}.")
    constant = {n: run.baselines[n]["l1"] for n in ("grey", "mean_ab") if n in run.baselines}
    if run.results and constant:
        best = min(run.results, key=lambda name: run.results[name]["l1"])
        floor = min(constant, key=lambda name: constant[name])
        beaten = sum(r["l1"] < constant[floor] for r in run.results.values())
        sentences.append(
            f"The lowest L1 has {best} with {run.results[best]['l1']:.2f}; one constant colour for "
            f"all images ({BASELINES[floor]}) has {constant[floor]:.2f}, which "
            f"{beaten} of {count(len(run.results), 'variant')} beat."
        )
        closest = min(run.results, key=lambda name: run.results[name]["lperc"])
        sentences.append(
            f"The lowest perceptual distance has {closest} with "
            f"{run.results[closest]['lperc']:.3g}."
        )
    supported = [c["id"] for c, v in zip(run.claims, verdicts, strict=True) if v == "supported"]
    against = [c["id"] for c, v in zip(run.claims, verdicts, strict=True) if v == "contradicted"]
    if supported:
        sentences.append(Html(f"Supported: {links(supported)}."))
    if against:
        sentences.append(Html(f"Contradicted: {links(against)}."))
    return Html(f"<p>{' '.join(map(page.text, sentences))}</p>\n{page.tally(verdicts)}")


def _ours(result: Mapping, metric: str) -> Html | None:
    if result.get(metric) is None:
        return None
    lo, hi = result.get(f"{metric}_ci") or (None, None)
    places = DECIMALS[metric] if abs(result[metric]) >= 5 else 3
    value = f"{result[metric]:.{places}f}"
    if lo is None or hi is None:
        return Html(value)
    return Html(f"{value} <small>[{lo:.{places}f}, {hi:.{places}f}]</small>")


def table1(run: Run) -> Html:
    """Table I: the paper's rows, our other variants, and the trivial baselines."""
    if run.table1 is None:
        return page.not_run("Table I", "dvc repro stages/colourisation/dvc.yaml:score")
    cells = {(c["id"], c["variant"], c["metric"]): c for c in run.table1["rows"]}
    rows, plain = [], []
    heads = list(dict.fromkeys((row_id, variant) for row_id, variant, _ in cells))
    for row_id, variant in heads:
        note = next(
            (c["note"] for k, c in cells.items() if k[:2] == (row_id, variant) and c.get("note")),
            "",
        )
        name = Html(f"{variant} <small>{page.text(note)}</small>") if note else variant
        row: dict[tuple[str, str], object] = {("", "model"): name}
        record: dict[str, object] = {"row": row_id, "model": variant}
        for metric, title in METRICS.items():
            cell = cells.get((row_id, variant, metric), {})
            own = {metric: cell.get("ours"), f"{metric}_ci": (cell.get("lo"), cell.get("hi"))}
            paper = cell.get("paper")
            row[title, "paper"] = None if paper is None else f"{paper:.{DECIMALS[metric]}f}"
            row[title, OURS] = _ours(own, metric)
            verdict = page.chip(str(cell.get("verdict") or "not run"))
            deviation = page.text(_deviation(cell.get("deviation")))
            row[title, DEVIATION] = Html(f"{deviation}<br>{verdict}")
            for key in ("paper", "ours", "lo", "hi", "deviation", "verdict", "reason"):
                record[f"{metric} {key}"] = cell.get(key)
        rows.append(row)
        plain.append(record)
    first_extra = len(rows)
    in_paper = {variant for _, variant in heads}
    extra = {v: run.results.get(v, {}) for v in run.variants if v not in in_paper}
    trivial = {BASELINES.get(n, n.replace("_", " ")): r for n, r in run.baselines.items()}
    for name, result in {**extra, **trivial}.items():
        row = {("", "model"): name}
        record = {"row": "", "model": name}
        for metric, title in METRICS.items():
            lo, hi = result.get(f"{metric}_ci") or (None, None)
            row[title, OURS] = _ours(result, metric) if result else page.chip("not run")
            record |= {f"{metric} ours": result.get(metric)}
            record |= {f"{metric} lo": lo, f"{metric} hi": hi}
        rows.append(row)
        plain.append(record)
    columns = [("", "model")]
    for title in METRICS.values():
        columns += [(title, c) for c in ("paper", OURS, DEVIATION)]
    frame = pd.DataFrame(
        [[row.get(column, Html("")) for column in columns] for row in rows],
        columns=pd.MultiIndex.from_tuples(columns),
        dtype=object,
    )
    first_trivial = first_extra + len(extra)
    csv = save_table(pd.DataFrame(plain), run.figures / "table1.csv")
    apart = run.table1.get("not_comparable_because")
    judged = (
        "A verdict says whether our interval lies around the paper's value."
        if run.table1.get("comparable")
        else "Values are not comparable with the paper's"
        + (f" ({apart})" if apart else "")
        + ": a verdict says whether a row lies on the paper's side of bn."
    )
    scale = f"{run.n:,} test images, {count(run.seeds, 'seed')}. " if run.n and run.seeds else ""
    return page.table(
        frame,
        caption=f"Table I. {scale}{judged} Below the lines: models that are not in the paper's "
        "table, and trivial predictions that need no network. The file has the reasons.",
        quiet=range(first_trivial, len(rows)),
        rules=[i for i in (first_extra, first_trivial) if i < len(rows)],
        csv=f"{run.figures.name}/{csv.name}",
    )


def _deviation(value: float | int | None) -> str | None:
    return None if value is None else page.signed(value)


def scatter(run: Run) -> Html:
    """L_perc against L1 over variants and baselines."""
    if not run.results:
        return page.not_run("L1 against L_perc", "dvc repro stages/colourisation/dvc.yaml:score")
    figure, table = draw.l1_against_lperc(run.results, run.baselines)
    path = save_figure(figure, run.figures / "l1_against_lperc.png", table)
    known = table[table.kind == "variant"]
    rank = known.l1.corr(known.lperc, method="spearman") if len(known) > 2 else None
    said = f" Spearman correlation over the variants: {page.number(rank, 2)}." if rank else ""
    return page.figure(
        path,
        alt="Scatter plot of L_perc against L1 for all variants and trivial baselines; the numbers "
        "are in Table I",
        caption=f"Two ways to be close to the original, with 95 % intervals.{said} Left, where the "
        "trivial predictions stand, which have learnt nothing.",
        dpi=DPI,
    )


def _of_variant(run: Run, variant: str | None = None) -> dict[str, Any]:
    """Return the parameters that shape a variant, or those of all, as the training merges them."""
    merged: dict[str, Any] = {}
    own = section(run.params, f"profiles.{run.profile}.{PAPER}")
    for group in (run.params[PAPER], own):
        for name in ("shared", "prepare", "train"):
            merged |= group.get(name) or {}
    return merged | (run.params[PAPER]["variants"][variant] if variant else {})


def variants_table(run: Run) -> Html:
    """List what distinguishes the variants, from params.yaml."""
    rows = [{"variant": v} | dict(run.params[PAPER]["variants"][v] or {}) for v in run.variants]
    frame = pd.DataFrame(rows).astype(object)
    frame = frame.where(frame.notna(), None)
    return page.table(frame, caption="The variants: what differs between them (params.yaml).")


def architecture(run: Run, variant: str | None = None) -> Html:
    """Fig. 2 as tables: the layers of G and of D for one variant, from the plan that builds it."""
    from stages.colourisation.networks import plan_discriminator, plan_generator

    with_d = [v for v in run.variants if _of_variant(run, v)["scales"] > 0]
    proposed = "ibn_sn_md" if "ibn_sn_md" in with_d else (with_d or run.variants)[-1]
    variant = variant or proposed
    p = _of_variant(run, variant)
    plans = {
        "G": plan_generator(
            widths=p["widths_g"], norm=p["norm"], sn=p["sn"], up=p["up"], size=p["size"]
        )
    }
    if p["scales"]:
        plans["D"] = plan_discriminator(
            widths=p["widths_d"], norm=p["norm"], sn=p["sn"], rf=p["rf"], size=p["size"]
        )
    what = {
        "G": f"Fig. 2, the generator of {variant}: e1 … encoder, d1 … decoder; skip: the map "
        "concatenated after the layer.",
        "D": f"Fig. 2, a discriminator of {variant}; there are {p['scales']} of them, each on an "
        "input of half the size of the one before." if p["scales"] > 1
        else f"Fig. 2, the discriminator of {variant}.",
    }  # fmt: skip
    tables = []
    for name, plan in plans.items():
        frame = draw.architecture_table(plan)
        csv = save_table(frame, run.figures / f"architecture_{name}.csv")
        shown = frame.rename(columns=lambda c: c.replace("_", " "))
        tables.append(page.table(shown, caption=what[name], csv=f"{run.figures.name}/{csv.name}"))
    return Html("\n".join(tables))


def learning_curves(run: Run) -> Html:
    """Fig. 3."""
    shown = [v for v in draw.FIG3 if v in run.variants]
    drawn = draw.learning_curves(run.artifacts, shown)
    if drawn is None:
        return page.not_run("Fig. 3", "dvc repro stages/colourisation/dvc.yaml:train")
    path = save_figure(drawn[0], run.figures / "learning_curves.png", drawn[1])
    return page.figure(
        path,
        alt=f"Learning curves of {listed(shown)}: adversarial term, loss of D, L1 on training "
        "and on validation images against the epoch",
        caption="Fig. 3. Thin: one seed; thick: mean of the seeds. Dotted: a discriminator that "
        "cannot tell real from predicted.",
        dpi=DPI,
    )


def histograms(run: Run) -> Html:
    """Fig. 4, and the distances of all variants to the real histograms."""
    shown = [v for v in draw.FIG4 if v in run.variants]
    drawn = draw.log_histograms(run.artifacts, shown)
    if drawn is None:
        return page.not_run("Fig. 4", "dvc repro stages/colourisation/dvc.yaml:evaluate")
    everything = draw.histogram_table(run.artifacts, run.variants)
    path = save_figure(drawn[0], run.figures / "histograms.png", everything)
    image = page.figure(
        path,
        alt=f"Log histograms of a and b of the real test images and of {listed(shown)}; the "
        "distances are in the table below",
        caption="Fig. 4. Logarithm of the number of pixels per image and bin of one unit; an empty "
        "bin is drawn at the lowest value. The file holds all variants.",
        dpi=DPI,
    )
    rows = []
    for name, result in [*run.results.items(), *run.baselines.items()]:
        if any(result.get(key) is not None for key in DISTANCES):
            label = BASELINES.get(name, name.replace("_", " ") if name in run.baselines else name)
            rows.append([label, *(result.get(key) for key in DISTANCES)])
    if not rows:
        return image
    frame = pd.DataFrame(rows, columns=["model", *DISTANCES.values()]).astype(object)
    frame = frame.where(frame.notna(), None)
    csv = save_table(frame, run.figures / "histogram_distances.csv")
    shown_cells = frame.map(lambda v: page.number(v, 3) if isinstance(v, (int, float)) else v)
    table = page.table(
        shown_cells,
        caption="Colour statistics of the predictions. Area: between the log histograms of Fig. 4, "
        "mean over bins; overlap: shared area, 1 if equal; JS: Jensen–Shannon divergence (bits), "
        "JS ab in two dimensions; W1: Wasserstein-1 distance (ab units); M3: colourfulness; "
        "detail: ab minus its 9 × 9 box blur; KID: kernel inception distance of the perceptual "
        "network's features.",
        quiet=range(len(run.results), len(rows)),
        rules=[len(run.results)] if len(run.results) < len(rows) else [],
        csv=f"{run.figures.name}/{csv.name}",
    )
    return Html(f"{image}\n{table}")


def grid(run: Run) -> Html:
    """Fig. 5, with the licence line of the images."""
    drawn = draw.comparison_grid(run.artifacts, run.variants)
    if drawn is None:
        return page.not_run("Fig. 5", "dvc repro stages/colourisation/dvc.yaml:prepare")
    path = save_figure(drawn[0], run.figures / "comparison.png", drawn[1])
    missing = [v for v in run.variants if f"L1 {v}" not in drawn[1]]
    lacking = f" Not run: {listed(missing)}." if missing else ""
    credit = f" Images: {run.meta['attribution']}" if run.meta else ""
    return page.figure(
        path,
        alt="The first test image of each class as grey input, coloured by every variant, and as "
        "it is; the L1 of every tile is in the CSV",
        caption="Fig. 5. The first test image of each class, chosen by this rule; every variant "
        f"with its first seed.{lacking}{credit}",
        wide=True,
        dpi=SCREEN_DPI,
    )


def worst_classes(run: Run) -> Html:
    """For every variant: the class with the largest L1 and the one with the least chroma."""
    rows = []
    for name, result in [*run.results.items(), *run.baselines.items()]:
        classes = result.get("per_class") or []
        if classes:
            worst = max(classes, key=lambda c: c["l1"])
            coloured = [c for c in classes if c["chroma_ratio"] is not None]
            palest = min(coloured or classes, key=lambda c: c["chroma_ratio"] or 0)
            label = BASELINES.get(name, name.replace("_", " ") if name in run.baselines else name)
            rows.append(
                [
                    label,
                    page.number(result["l1"], 3),
                    worst["class"],
                    page.number(worst["l1"], 3),
                    worst["n"],
                    palest["class"],
                    page.number(palest["chroma_ratio"], 3),
                    palest["n"],
                ]
            )
    if not rows:
        return page.not_run("Results per class", "dvc repro stages/colourisation/dvc.yaml:score")
    columns = [
        ("", "model"),
        ("", "L1"),
        ("largest L1", "class"),
        ("largest L1", "L1"),
        ("largest L1", "images"),
        ("least chroma", "class"),
        ("least chroma", "chroma / real"),
        ("least chroma", "images"),
    ]
    frame = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(columns), dtype=object)
    per_class = [
        {"model": name, **entry}
        for name, result in [*run.results.items(), *run.baselines.items()]
        for entry in result.get("per_class") or []
    ]
    csv = save_table(pd.DataFrame(per_class), run.figures / "per_class.csv")
    return page.table(
        frame,
        caption="Where each model fails most. The file has all classes.",
        quiet=[i for i, row in enumerate(rows) if row[0] in BASELINES.values()],
        csv=f"{run.figures.name}/{csv.name}",
    )


def claims(run: Run) -> Html:
    """All claims with their verdicts, numbers and reasons."""
    return page.claims(run.claims)


# question, model, reference, the model whose effect over the reference this may explain, claim
CONTROLS = (
    (
        "Is the effect of several discriminators that of a weaker L1 term?",
        ("bn_sn_lam33", "bn_sn", "bn_sn_md"),
        "X4",
    ),
    ("Does spectral norm act where a norm follows?", ("bn_sn_unnormed", "bn_sn", None), "X3"),
    ("What does the adversarial term add to a plain regression?", ("bn", "l1_only", None), None),
    ("Which instance norm: the code's or the text's?", ("ln", "in", None), None),
    (
        "Does more of the same colour do what several discriminators do?",
        ("bn_saturated", "bn", "bn_sn_md"),
        None,
    ),
)


def controls(run: Run) -> Html:
    """Compare the controls: differences between pairs of models, and the claim they decide."""
    measured = {"l1": "ΔL1", "lperc": "ΔL_perc", "chroma": "Δchroma"}
    verdicts = {c["id"]: str(c.get("verdict") or "not run") for c in run.claims}
    models = {**run.results, **run.baselines}
    rows = []
    for question, (name, reference, explained), claim in CONTROLS:
        row: list[object] = [question, f"{name} − {reference}"]
        for metric in measured:
            value, base, other = (
                models.get(model or "", {}).get(metric) for model in (name, reference, explained)
            )
            if value is None or base is None:
                row.append(page.chip("not run"))
                continue
            cell = page.text(page.signed(value - base))
            if other is not None and other != base:
                share = 100 * (value - base) / (other - base)
                says = f"{share:.0f} % of" if abs(share) < 1000 else "over 10 times"
                cell += f" <small>{says} {explained}’s</small>"
            row.append(Html(cell))
        link = f'<a href="#{claim}">{claim}</a> {page.chip(verdicts[claim])}' if claim else ""
        rows.append([*row, Html(link)])
    frame = pd.DataFrame(
        rows, columns=["question", "difference", *measured.values(), "claim"], dtype=object
    )
    return page.table(
        frame,
        caption="Controls: differences of means between two models; intervals are with the claims.",
    )


def deviations(run: Run) -> Html:
    """Where and why this differs from the paper and its released code."""
    settings = _of_variant(run)
    return page.deviations([*of_scale(run.meta), *of_parameters(settings), *ALWAYS])


def provenance(run: Run, root: Path = Path()) -> Html:
    """List what the page was made from, as far as it is the same on every machine."""
    rows: list[tuple[str, object]] = [("profile", run.profile)]
    if run.meta:
        rows += [
            ("data set", run.meta["dataset"]),
            ("attribution", run.meta["attribution"]),
            ("images", f"{run.meta['n_train']:,} train, {run.meta['n_val']:,} val, "
                       f"{run.meta['n_test']:,} test; {run.meta['grey_converted']:,} were grey"),
        ]  # fmt: skip
        rows += fingerprint(run.meta["dataset"], root, "fingerprint")
    facts, parameters = made_of(
        rows,
        PAPER,
        run.profile,
        params=run.params,
        packages=("torch", "torchvision", "numpy", "scipy", "scikit-image", "matplotlib", "dvc"),
        without=("variants",),
        root=root,
    )
    return Html(f"{facts}\n{parameters}")
