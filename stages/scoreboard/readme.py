"""Write the results in README.md and docs/results.md from reports/results: they cannot differ.

``python -m stages.scoreboard.readme`` replaces what stands between ``<!-- results:begin -->`` and
``<!-- results:end -->`` in both; a test compares.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.common.files import read_json, write_text
from stages.common.stage import one_sentence
from stages.scoreboard.blocks import filled
from stages.scoreboard.headlines import headline

METRICS = {"l1": "L1", "psnr": "PSNR, dB", "lperc": "L_perc"}
RESULTS = Path("reports/results/embedded")
PHOTOGRAPHS = Path("reports/reference/colourisation_imagenet1k-samples256.json")


def _number(value: float, places: int = 2) -> str:
    return f"{value:.{places}f}"


def _cell(row: Mapping, places: int = 2) -> str:
    if row["ours"] is None:
        return "not run"
    ours, lo, hi = (_number(row[key], places) for key in ("ours", "lo", "hi"))
    return f"{ours} [{lo}, {hi}]"


def colourisation(results: Path = RESULTS) -> str:
    """Return paper D's Table I as Markdown: the paper's value, ours with its 95 % interval."""
    table = read_json(results / "colourisation" / "table1.json")
    verdicts = list(read_json(results / "colourisation" / "claims.json")["verdicts"].values())
    cells = {(row["variant"], row["metric"]): row for row in table["rows"]}
    variants = list(dict.fromkeys(row["variant"] for row in table["rows"]))
    heads = [f"{label}: {who}" for label in METRICS.values() for who in ("paper", "ours")]
    lines = [
        f"| variant | {' | '.join(heads)} |",
        "|---" * (1 + len(heads)) + "|",
    ]
    for variant in variants:
        row = []
        for metric in METRICS:
            cell = cells[variant, metric]
            row += [_number(cell["paper"]), _cell(cell)]
        lines.append(f"| {variant} | {' | '.join(row)} |")
    for baseline in table["baselines"]:
        row = []
        for metric in METRICS:
            lo, hi = baseline[f"{metric}_ci"]
            row += ["–", _cell({"ours": baseline[metric], "lo": lo, "hi": hi})]
        lines.append(f"| *{baseline['name']}* | {' | '.join(row)} |")
    first = next(row for row in table["rows"] if row["ours"] is not None)
    counts = ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("supported", "contradicted", "inconclusive", "not run")
    )
    return "\n".join(
        [
            f"Paper D, profile `embedded`: {first['n']} test images, {first['seeds']} seeds,"
            f" {100 * table['level']:.0f} % intervals over images and seeds. Of {len(verdicts)}"
            f" claims {counts}. L_perc is on {table['perc_backbone']}, the paper's on VGG19: only"
            " its order compares. In italics: trivial baselines and the saturation control.",
            "",
            *lines,
            "",
            photographs(cells["bn", "l1"]["paper"], cells["bn", "psnr"]["paper"]),
            "",
        ]
    )


SCHEMES = ("proposed", "pe_same", "pe_diff", "tanaka", "plain")  # the rows of paper A's Table I
COLUMNS = {"uwa": "UWA, SSIM", "ga": "GA, SSIM", "c10": "10 classes, %", "c100": "transfer, %"}


def gan_transform(results: Path = RESULTS) -> str:
    """Return paper A's Table I as Markdown, with the strongest attack that was tried."""
    folder = results / "gan_transform"
    table = read_json(folder / "table1.json")
    cells = {(row["scheme"], row["column"]): row for row in table["rows"]}
    verdicts = list(read_json(folder / "claims.json")["verdicts"].values())
    heads = [f"{label}: {who}" for label in COLUMNS.values() for who in ("paper", "ours")]
    heads += ["strongest attack without pairs: SSIM", "strongest attack: SSIM"]
    lines = [f"| scheme | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for scheme in SCHEMES:
        row = []
        for column in COLUMNS:
            cell = cells[scheme, column]
            places = 3 if cell["metric"] == "ssim" else 1
            row.append("–" if cell["paper"] is None else f"{cell['paper']:.{places}f}")
            row.append(_cell(cell, places))
        own = read_json(folder / f"{scheme}.json")
        for kind in ("worst_unpaired", "worst"):
            row.append(f"{own[f'{kind}_attack']}: {_number(own[f'{kind}_ssim'], 3)}")
        lines.append(f"| {scheme} | {' | '.join(row)} |")
    blank = next(
        f for f in read_json(folder / "matrix.json")["floors"]
        if (f["name"], f["where"]) == ("blank", "attack")
    )  # fmt: skip
    first = next(row for row in table["rows"] if row["ours"] is not None)
    counts = ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("supported", "contradicted", "inconclusive", "not run")
    )
    return "\n".join(
        [
            f"Paper A, profile `embedded`: {first['n']} attacked test images,"
            f" {first['seeds']} seeds, {100 * table['level']:.0f} % intervals over images and"
            f" seeds. Of {len(verdicts)} claims {counts}. Ours are emoji at 32 pixels, the paper's"
            " photographs: only the order of the rows compares. SSIM of the reconstruction, lower"
            f" is more private; a blank image has {_number(blank['ssim'], 3)}, so less than that"
            f" shows that an attack failed, no more. Guessing is right for"
            f" {_number(table['guess']['ten'], 1)} and {_number(table['guess']['transfer'], 1)} %."
            " The last columns: the most successful of the attacks that all schemes were given,"
            " without pairs of images and ciphers, and of all.",
            "",
            *lines,
            "",
        ]
    )


# metric of paper B -> head, decimals
LEAKS = {
    "id1": ("found again, %", 1),
    "pd": ("perceptual distance", 3),
    "dcos": ("descriptor cosine", 3),
    "log_sharp_abs": ("blur", 2),
    "psnr": ("PSNR, dB", 2),
    "ssim": ("SSIM", 3),
}


def sift_inversion(results: Path = RESULTS) -> str:
    """Return paper B's runs and floors on the faces as Markdown; the paper prints no number."""
    folder = results / "sift_inversion"
    table = read_json(folder / "table.json")
    rows = [row for row in table["rows"] if row["set"] == "faces"]
    verdicts = list(read_json(folder / "claims.json")["verdicts"].values())
    heads = [head for head, _ in LEAKS.values()]
    lines = [f"| run | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for row in rows:
        cells = []
        for metric, (_, places) in LEAKS.items():
            cell = row["values"].get(metric)
            cells.append(_cell({**cell, "ours": cell["value"]}, places) if cell else "–")
        name = row["name"] if row["kind"] == "run" else f"*{row['name']}*"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    first = next(row for row in rows if row["kind"] == "run")
    seeds = max(len(cell["seeds"]) for cell in first["values"].values())
    counts = ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("supported", "contradicted", "inconclusive", "not run")
    )
    return "\n".join(
        [
            f"Paper B, profile `embedded`: {first['n']} test images of drawn faces and gestures,"
            f" {seeds} seeds, {100 * table['level']:.0f} % intervals over images and seeds. Of"
            f" {len(verdicts)} claims {counts}. The paper prints no number. Found again: the"
            " reconstruction's nearest of all test images is its original; by chance"
            f" {_number(first['id1_chance'], 1)} %. Descriptor cosine: of SIFT descriptors computed"
            " again, 1 for the original. Blur: |log| of the gradients' share, 0 for the original."
            " In italics: images that know less or more than the descriptors.",
            "",
            *lines,
            "",
        ]
    )


# metric of paper C -> head, decimals, times
CELLS = {
    "ba_mean": ("attributes, %", 1, 100),
    "ba_wrong_key": ("wrong key, %", 1, 100),
    "ba_popcount": ("numbers of ones alone, %", 1, 100),
    "ba_attacked": ("after the attack, %", 1, 100),
    "attacked_cos_median": ("cosine", 3, 1),
    "attacked_centred_median": ("centred", 3, 1),
    "guess_cos_median": ("guess", 3, 1),
}


def deep_features(results: Path = RESULTS) -> str:
    """Return what each black box's features give away, encrypted and not, as Markdown."""
    folder = results / "deep_features"
    verdicts = list(read_json(folder / "claims.json")["verdicts"].values())
    table = read_json(folder / "table.json")
    names = [cell["name"] for cell in table["cells"]]
    heads = ["chance, %", *(head for head, _, _ in CELLS.values())]
    lines = [f"| black box and set | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    measured = {
        name: read_json(path) for name in names if (path := folder / f"{name}.json").exists()
    }
    for name, own in measured.items():
        cells = [_number(100 * own["chance"], 1) if "chance" in own else "–"]
        for metric, (_, places, times) in CELLS.items():
            if metric not in own:
                cells.append("–")
                continue
            lo, hi = own[f"{metric}_ci"]
            values = {"ours": own[metric] * times, "lo": lo * times, "hi": hi * times}
            cells.append(_cell(values, places))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    counts = ", ".join(
        f"{verdicts.count(v)} {v}" for v in ("supported", "contradicted", "inconclusive", "not run")
    )
    seeds = max(
        len(of) for own in measured.values() for k, of in own.items() if k.endswith("_seeds")
    )
    images = next(iter(measured.values()))["n"]
    return "\n".join(
        [
            f"Paper C, profile `embedded`: {images} test images of drawn people, {seeds} seeds,"
            f" {100 * table['level']:.0f} % intervals over people and seeds. Of {len(verdicts)}"
            f" claims {counts}. The paper prints one number, 32!. Attributes: balanced accuracy,"
            " mean of twelve, of heads on plain features; on features decrypted with a wrong key;"
            " of a classifier that has no key and counts the ones of each float, every float under"
            " a key of its own; and of the heads on what a ciphertext-only attack recovers, each"
            " image encrypted alone under a key of its own. Cosine: of a vector so attacked with"
            " the true one, the median over requests; 1 is all. Guess: the same of the mean of the"
            " adversary's own features, which needs no ciphertext. Centred: the attack's cosine"
            " with that mean taken off both vectors, so that a guess has 0; it is what is judged.",
            "",
            *lines,
            "",
        ]
    )


# paper -> its letter, what it is about
ABOUT = {
    "gan_transform": ("A", "an image cipher learned by a GAN"),
    "sift_inversion": ("B", "images back from SIFT descriptors"),
    "deep_features": ("C", "encrypted deep features"),
    "colourisation": ("D", "colour back from grey"),
}


def summary(results: Path = RESULTS) -> str:
    """Return what README.md holds between its marks: a row a paper, with its verdicts counted."""
    lines = ["| paper | what was found, at the smallest scale | verdicts |", "|---|---|---|"]
    for paper, (letter, about) in ABOUT.items():
        verdicts = list(read_json(results / paper / "claims.json")["verdicts"].values())
        counts = "<br>".join(
            f"{verdicts.count(v)} {v}"
            for v in ("supported", "contradicted", "inconclusive", "not run")
        )
        link = f"[{letter}: {about}](reports/embedded/{paper}.html)"
        lines.append(f"| {link} | {headline(paper, results / paper)} | {counts} |")
    return "\n".join([*lines, ""])


def tables(results: Path = RESULTS) -> str:
    """Return what docs/results.md holds between its marks: the papers' tables, ours beside."""
    papers = (gan_transform, sift_inversion, deep_features, colourisation)
    return "\n".join(paper(results) for paper in papers)


def photographs(l1: float, psnr: float, path: Path = PHOTOGRAPHS) -> str:
    """Return the sentence that sets the paper's best L1 and PSNR beside constant colours."""
    found = read_json(path)
    grey, mean = (found["baselines"][name] for name in ("grey", "mean_ab"))
    return (
        f"On {found['n']:,} real photographs, one for each ImageNet class, predictors that look at"
        f" nothing score about what Table I prints for its best network (L1 {_number(l1)},"
        f" {_number(psnr)} dB): one constant colour L1 {_number(mean['l1'])},"
        f" {_number(mean['psnr'])} dB; grey L1 {_number(grey['l1'])}, {_number(grey['psnr'])} dB"
        f" ([measured](../{path}) by `python -m stages.colourisation.reference`)."
    )


PAGES = {"README.md": summary, "docs/results.md": tables}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the results into both pages; if one is bad, one sentence and status 2."""
    argparse.ArgumentParser(
        prog="python -m stages.scoreboard.readme", description="Write the results into the pages."
    ).parse_args(argv)
    with one_sentence("readme"):
        new = {
            Path(name): filled(Path(name).read_text(encoding="utf-8"), "results", write(), name)
            for name, write in PAGES.items()
        }
        for page, text in new.items():  # all or none
            write_text(page, text)


if __name__ == "__main__":
    main()
