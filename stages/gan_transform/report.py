"""The sections of paper A's report, each a function of what :func:`load` found.

Numbers, and the sentences about them, come from the results of ``score`` and from the stages'
artifacts; what has no result yet is shown as "not run". The notebook only puts the sections in
order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common import report as page
from stages.common.figures import DPI, SCREEN_DPI, save_figure, save_table
from stages.common.files import read_json, read_npz
from stages.common.paper_report import (
    count,
    fingerprint,
    flat,
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
from stages.gan_transform import figures as draw
from stages.gan_transform.claims import attack_of
from stages.gan_transform.deviations import ALWAYS, of_parameters, of_scale

PAPER = "gan_transform"
SCORE = f"dvc repro stages/{PAPER}/dvc.yaml:score"
PROPOSED = "proposed"
OTHERS = ("pe_same", "pe_diff", "tanaka")  # the encryptions of Table I
TABLE1 = (PROPOSED, *OTHERS, "plain")  # its rows
BASELINES = ("proposed_sum", "noise")  # ours, trained and attacked in the same way
SCHEMES = (*TABLE1, *BASELINES)
EXTRAS = ("pe_same_shuffle", "pe_diff_shuffle", "blur", "random_sign")  # no classifier, no GAN
WHAT = {
    "proposed": "h_p, the CycleGAN's G_AB; eq. 9 as a mean over pixels",
    "proposed_sum": "the same, eq. 9 as the sum it prints",
    "pe_same": "pixel-based: bytes inverted by a mask, one for all images",
    "pe_diff": "pixel-based: a mask for every image",
    "tanaka": "block-wise: half bytes of 4 × 4 blocks permuted, some inverted",
    "plain": "the image as it is",
    "noise": "null control: AES in counter mode, a nonce for every image",
    "pe_same_shuffle": "pixel-based, colours of every pixel permuted too, one key",
    "pe_diff_shuffle": "the same, a key for every image",
    "blur": "Gaussian blur",
    "random_sign": "every byte moved by a random sign",
}
NOTHING, PUBLIC, PAIRS, INSIDER = "nothing", "public images", "pairs", "insider"
GROUPS = {
    NOTHING: "ciphers alone",
    PUBLIC: "and public images",
    PAIRS: "and pairs",
    INSIDER: "insider",
}
# attack -> what the attacker has beside ciphers, what it does
ATTACKS = {
    "raw": (NOTHING, "the cipher itself, taken for the image"),
    "fr": (NOTHING, "v → min(v, 255 − v), which a mask of inversions cannot change"),
    "fr_advanced": (PUBLIC, "for every pixel the inversions and colour order most like its "
                    "neighbour, from the public images' mean corner on"),
    "pc1": (PUBLIC, "the mask from the sign of the ciphers' first principal component"),
    "qap": (PUBLIC, "the permutation by matching statistics of half bytes with public images"),
    "ga_blockwise": (PUBLIC, "GAN attack, generator on 4 × 4 blocks (Fig. 4a)"),
    "ga_shared": (PUBLIC, "GAN attack, 1 × 1 convolutions (Fig. 4b)"),
    "ga_local": (PUBLIC, "GAN attack, unshared weights a pixel, then convolutions (Fig. 4b)"),
    "ga_unet": (PUBLIC, "GAN attack, U-Net as for the proposed scheme"),
    "uwa_literal": (PAIRS, "unshared weights: a linear map a pixel, mean squared error as a mean"),
    "uwa_strong": (PAIRS, "the same, summed over pixels: a larger step"),
    "uwa_block": (PAIRS, "linear map a 4 × 4 block, summed"),
    "kpa_le": (PAIRS, "half bytes matched by their values in a few pairs"),
    "kpa_pe": (PAIRS, "mask and colour order solved pixel by pixel"),
    "itn": (PAIRS, "inverse transformation network: U-Net from cipher to image"),
    "g_ba": (INSIDER, "the inverse G_BA that the training of h_p leaves behind"),
    "g_ba_float": (INSIDER, "G_BA on the output before it is rounded to bytes"),
}  # fmt: skip
FREE = ("fr", "fr_advanced", "pc1", "qap")  # no training, no pairs
FLOORS = {
    "blank": "blank image",
    "mean_colour": "mean colour",
    "other_image": "another image",
    "noise": "random image",
}
# file of the training-free attacks -> what of the key was found
RATES = {
    "rate_pc1": ("pc1", "bits of the mask"),
    "rate_qap_upper": ("qap", "places of upper half bytes"),
    "rate_qap": ("qap", "places of all half bytes"),
    "rate_kpa_le": ("kpa_le", "places of all half bytes"),
    "rate_kpa_pe": ("kpa_pe", "bits of the mask"),
}
COLUMNS = {"uwa": "ssim", "ga": "ssim", "c10": "acc", "c100": "acc"}  # of Table I
PLACES = {"ssim": 3, "acc": 1}
PRINTED = {"ssim": 4, "acc": 2}  # decimals in Table I
OURS, DEVIATION = "ours [95 % CI]", "deviation, verdict"
DATA = ("ten", "transfer")
WORST_CASE, INVERSION, TRAINING_FREE = "C2b", "X1", "X2"  # claims that the finding answers
CANCELS = 0.05  # mean |SSIM| above |mean SSIM| that is worth showing
DARKEST = 0.5  # opacity of a matrix cell at SSIM 1: text stays legible on light and dark pages


@dataclass(frozen=True)
class Run:
    """What exists of one profile; missing results are None or absent."""

    profile: str
    figures: Path
    artifacts: Path
    params: Mapping[str, Any]
    paper: Mapping[str, Any]
    meta: Mapping[str, Any] | None
    results: Mapping[str, Mapping[str, Any]]
    table1: Mapping[str, Any] | None
    matrix: Mapping[tuple[str, str], Mapping[str, Any]]
    floors: Mapping[str, Mapping[str, Any]]
    protection: Mapping[str, Any] | None
    variants: Mapping[str, str]
    claims: list[Mapping[str, Any]]

    @property
    def blank(self) -> float | None:
        """SSIM of a blank image on the images that are attacked."""
        return self.floors["blank"]["ssim"] if "blank" in self.floors else None

    def verdict(self, claim: str) -> str:
        """Return the verdict on a claim; "not run" if it was not judged."""
        return verdict_of(self.claims, claim)


def load(profile: str, figures: Path, root: Path = Path()) -> Run:
    """Collect the paper's parameters, claims and results of ``profile`` below ``root``.

    Raises
    ------
    InputError
        If params.yaml has no such profile, or a file that exists cannot be read.
    """
    params, artifacts, folder, paper, claims = sources(PAPER, profile, root)
    found = {s: optional(folder / f"{s}.json") for s in (*SCHEMES, *EXTRAS)}
    matrix = optional(folder / "matrix.json") or {"rows": [], "floors": []}
    encrypted = {s: optional(artifacts / "encrypt" / s / "meta.json") for s in SCHEMES}
    return Run(
        profile=profile,
        figures=figures,
        artifacts=artifacts,
        params=params,
        paper=paper,
        meta=optional(artifacts / "prepare" / "meta.json"),
        results={name: result for name, result in found.items() if result},
        table1=optional(folder / "table1.json"),
        matrix={(r["scheme"], r["attack"]): r for r in matrix["rows"] if r["scheme"] in found},
        floors={r["name"]: r for r in matrix["floors"] if r["where"] == "attack"},
        protection=optional(folder / "protection.json"),
        variants={s: m["variant"] for s, m in encrypted.items() if m and m.get("variant")},
        claims=claims,
    )


# ---------------------------------------------------------------- words


def _fixed(value: float | int | None, kind: str) -> str:
    """Write an SSIM with 3 decimals, an accuracy with 1, with a true minus."""
    return page.NOTHING if value is None else draw.fixed(value, PLACES[kind])


def _ga(scheme: str) -> str:
    """Return the GAN attack with the generator that the paper gives a scheme."""
    return str(attack_of(scheme, "ga"))


def _beside_blank(run: Run, row: Mapping[str, Any]) -> str:
    """Say on which side of the blank image's SSIM an interval lies."""
    if run.blank is None:
        return ""
    lo, hi = row.get("lo"), row.get("hi")
    if lo is None or hi is None:
        lo = hi = row["ssim"]
    side = "more than" if lo > run.blank else "less than" if hi < run.blank else "about as much as"
    return f", {side} a blank image"


# ---------------------------------------------------------------- finding


def _worst(run: Run, scheme: str, kind: str) -> str | None:
    """Write a scheme's worst case, as in "0.412 (itn)"; ``kind``: "worst" or "worst_unpaired"."""
    result = run.results.get(scheme, {})
    if result.get(f"{kind}_ssim") is None:
        return None
    return f"{_fixed(result[f'{kind}_ssim'], 'ssim')} ({result[f'{kind}_attack']})"


def _worst_cases(run: Run, kind: str) -> str:
    """Write the proposed scheme's worst case beside the others'; empty if there is none."""
    worst = {s: w for s in (PROPOSED, *OTHERS) if (w := _worst(run, s, kind))}
    if PROPOSED not in worst or len(worst) == 1:
        return ""
    rest = {s: w for s, w in worst.items() if s != PROPOSED}
    own = run.results[PROPOSED][f"{kind}_ssim"]
    lower = sum(own < run.results[s][f"{kind}_ssim"] for s in rest)
    place = "all" if lower == len(rest) else f"{lower or 'none'} of the"
    others = listed([f"{s} {w}" for s, w in rest.items()])
    return f"{worst[PROPOSED]}, lower than that of {place} {len(rest)} others: {others}"


def _robustness(run: Run) -> list[Html]:
    """Answer whether the proposed scheme is the more robust one, by the verdict on C2b."""
    anyone, unpaired = _worst_cases(run, "worst"), _worst_cases(run, "worst_unpaired")
    if not anyone:
        return [Html("The schemes were not attacked yet.")]
    less = "less than every other scheme under the strongest attack that all four were given"
    answer = {
        "supported": f"The proposed scheme gives away {less}",
        "contradicted": f"The proposed scheme does not give away {less}",
        "inconclusive": f"Whether the proposed scheme gives away {less} stays open",
        "not run": f"Whether the proposed scheme gives away {less} was not judged",
    }[run.verdict(WORST_CASE)]
    blank = (
        f"; a blank image has {_fixed(run.blank, 'ssim')}, a perfect one 1"
        if run.blank is not None
        else ""
    )
    said = [
        sentence(answer, judged(run.claims, WORST_CASE), "."),
        sentence(f"Its worst case is an SSIM of {anyone}{blank}."),
    ]
    if unpaired:
        without = "Without pairs of images and ciphers, as in the paper, its worst case is "
        said.append(sentence(f"{without}{unpaired}."))
    return said


def _guessing(run: Run, data: str, scheme: str) -> str:
    """Write what guessing gives, and whether the scheme keeps more than that."""
    guess = ((run.table1 or {}).get("guess") or {}).get(data)
    if guess is None:
        return ""
    lo, _ = run.results.get(scheme, {}).get(f"acc_{data}_ci") or (None, None)
    no_better = lo is not None and lo <= guess
    return f"{'no better than' if no_better else 'above'} guessing, {_fixed(guess, 'acc')} %"


def _best_arm(run: Run, scheme: str, data: str) -> tuple[float, str] | None:
    """Return a scheme's best accuracy over the ways to augment, and which if not Table I's."""
    found = {
        arm: value
        for key, value in run.results.get(scheme, {}).items()
        if key.startswith(f"acc_{data}") and isinstance(value, float | int)
        if not key.endswith(("_ci", "_seeds"))
        for arm in [key.removeprefix(f"acc_{data}").strip("_")]
    }
    if not found:
        return None
    arm = max(found, key=lambda arm: found[arm])
    return found[arm], {"none": ", not augmented"}.get(arm, f", augmented by {arm}" if arm else "")


def _set(run: Run, data: str) -> str:
    """Name the images of a task."""
    key, unknown = {
        "ten": ("dataset", "the images h_p was trained for"),
        "transfer": ("transfer_dataset", "the transfer set"),
    }[data]
    return str((run.meta or {}).get(key, unknown))


def _usefulness(run: Run) -> list[Html]:
    """Say what accuracy is left, and what the other schemes leave."""
    parts, best = [], []
    for data in DATA:
        key = f"acc_{data}"
        own = run.results.get(PROPOSED, {}).get(key)
        if own is None:
            continue
        plain = run.results.get("plain", {}).get(key)
        beside = ""
        if plain is not None:
            gap = round(plain - own, PLACES["acc"])
            side = (
                f"{abs(gap):.1f} points {'fewer' if gap > 0 else 'more'} than" if gap else "as on"
            )
            beside = f"{side}{' on' * bool(gap)} plain images"
        beside = "; ".join(filter(None, (beside, _guessing(run, data, PROPOSED))))
        beside = f" ({beside})" * bool(beside)
        unseen = ", which h_p never saw" if data == "transfer" else ""
        parts.append(f"for {_fixed(own, 'acc')} % of {_set(run, data)}{unseen}{beside}")
        rest = {s: arm for s in OTHERS if (arm := _best_arm(run, s, data))}
        if rest:
            first = max(rest, key=lambda s: rest[s][0])
            value, how = rest[first]
            best.append(f"{first} on {_set(run, data)} ({_fixed(value, 'acc')} %{how})")
    if not parts:
        return []
    sentences = [sentence(f"A classifier of its images is right {listed(parts)}.")]
    if best:
        sentences.append(sentence(f"Of the other schemes, most is kept by {listed(best)}."))
    return sentences


def _inversion(run: Run) -> list[Html]:
    """Say whether h_p can be inverted, by pairs or by the inverse of its own training."""
    said = {
        "itn": "a network trained on pairs (itn) recovers an SSIM of ",
        "g_ba": "the inverse that its own training leaves behind (g_ba) recovers ",
    }
    parts = [
        f"{words}{_fixed(row['ssim'], 'ssim')}{_beside_blank(run, row)}"
        for attack, words in said.items()
        if (row := run.matrix.get((PROPOSED, attack)))
    ]
    if not parts:
        return []
    return [sentence("To invert it, ", "; ".join(parts), judged(run.claims, INVERSION), ".")]


def _without_training(run: Run) -> list[Html]:
    """Say what pe_same and tanaka give away to attacks that learn nothing."""
    parts = []
    for scheme in ("pe_same", "tanaka"):
        rows = [run.matrix[scheme, a] for a in FREE if (scheme, a) in run.matrix]
        if not rows:
            continue
        best = max(rows, key=lambda row: row["ssim"])
        paper = run.matrix.get((scheme, _ga(scheme)))
        beside = f" (the GAN attack: {_fixed(paper['ssim'], 'ssim')})" if paper else ""
        parts.append(
            f"{best['attack']} recovers {scheme} to an SSIM of {_fixed(best['ssim'], 'ssim')}"
            f"{beside}"
        )
    if not parts:
        return []
    return [
        sentence(
            f"Without training or pairs, {listed(parts)}", judged(run.claims, TRAINING_FREE), "."
        )
    ]


def finding(run: Run) -> Html:
    """Answer the paper's question in one paragraph, computed from the results; then verdicts."""
    verdicts = [str(c.get("verdict") or "not run") for c in run.claims]
    answer = [*_robustness(run), *_usefulness(run), *_inversion(run), *_without_training(run)]
    rest: list[str] = []
    sizes = {row["n"] for row in run.matrix.values() if row.get("n")}
    seeds = {row["seeds"] for row in run.matrix.values() if row.get("seeds")}
    if run.meta and sizes and seeds:
        meta = run.meta
        rest.append(
            f"Attacks were judged on {max(sizes):,} images of {meta['attack_dataset']} at "
            f"{meta['attack_size']} pixels, classifiers on {meta['n_test']:,} of {meta['dataset']} "
            f"and {meta['n_transfer_test']:,} of {meta['transfer_dataset']} at {meta['size']}, "
            f"with {count(max(seeds), 'seed')} (profile {run.profile})."
        )
    else:
        rest.append(f"Profile {run.profile} has no results yet.")
    counts = [
        f"{verdicts.count(verdict)} {verdict}" for verdict in page.VERDICTS if verdict in verdicts
    ]
    rest.append(f"Of {count(len(verdicts), 'claim')}, {listed(counts)}.")
    for verdict in ("supported", "contradicted"):
        found = [str(c["id"]) for c, v in zip(run.claims, verdicts, strict=True) if v == verdict]
        if found:
            rest.append(Html(f"{verdict.capitalize()}: {links(found)}."))
    return Html(
        f"<p>{' '.join(answer)}</p>\n<p>{' '.join(map(page.text, rest))}</p>\n"
        f"{page.tally(verdicts)}"
    )


# ---------------------------------------------------------------- Table I


def _with_interval(
    value: float | int | None, lo: float | None, hi: float | None, kind: str
) -> Html | None:
    if value is None:
        return None
    shown = _fixed(value, kind)
    if lo is None or hi is None:
        return Html(shown)
    return Html(f"{shown} <small>[{_fixed(lo, kind)}, {_fixed(hi, kind)}]</small>")


def _titles(run: Run) -> dict[str, str]:
    """Head each of Table I's columns with the data that were used."""
    meta = run.meta or {}
    attacked = meta.get("attack_dataset", "attack images")
    return {
        "uwa": f"UWA: SSIM, {attacked}",
        "ga": f"GA: SSIM, {attacked}",
        "c10": f"accuracy (%), {meta.get('dataset', 'ten')}",
        "c100": f"after transfer (%), {meta.get('transfer_dataset', 'transfer')}",
    }


def _extra_cell(run: Run, scheme: str, column: str) -> tuple[Any, Any, Any, str]:
    """Return value, interval and attack of a cell that the paper's table does not have."""
    if COLUMNS[column] == "ssim":
        attack = str(attack_of(scheme, column))
        row = run.matrix.get((scheme, attack), {})
        return row.get("ssim"), row.get("lo"), row.get("hi"), attack
    key = "acc_ten" if column == "c10" else "acc_transfer"
    result = run.results.get(scheme, {})
    lo, hi = result.get(f"{key}_ci") or (None, None)
    return result.get(key), lo, hi, ""


def _other_arms(run: Run, scheme: str, column: str) -> str:
    """Write the accuracies of the ways to augment that are not Table I's, small."""
    task = {"c10": "ten", "c100": "transfer"}.get(column)
    if task is None:
        return ""
    words = {"none": "not augmented", "server": "by server", "client": "by client"}
    found = {arm: run.results.get(scheme, {}).get(f"acc_{task}_{arm}") for arm in words}
    shown = [f"{words[a]} {_fixed(v, 'acc')}" for a, v in found.items() if v is not None]
    return "".join(f"<br><small>{page.text(arm)}</small>" for arm in shown)


def table1(run: Run) -> Html:
    """Table I: the paper's rows, our other schemes, and what images without content score."""
    if run.table1 is None:
        return page.not_run("Table I", SCORE)
    cells = {(c["scheme"], c["column"]): c for c in run.table1["rows"]}
    titles = _titles(run)
    rows: list[dict[tuple[str, str], object]] = []
    plain: list[dict[str, object]] = []
    for scheme in TABLE1:
        row: dict[tuple[str, str], object] = {("", "scheme"): scheme}
        record: dict[str, object] = {"scheme": scheme}
        for column, kind in COLUMNS.items():
            cell = cells.get((scheme, column), {})
            title, paper = titles[column], cell.get("paper")
            row[title, "paper"] = None if paper is None else f"{paper:.{PRINTED[kind]}f}"
            ours = _with_interval(cell.get("ours"), cell.get("lo"), cell.get("hi"), kind)
            attack = f" <small>{page.text(cell['attack'])}</small>" if cell.get("attack") else ""
            arms = _other_arms(run, scheme, column)
            row[title, OURS] = Html(f"{ours}{attack}{arms}") if ours else None
            verdict, apart = cell.get("verdict"), cell.get("deviation")
            apart = None if apart is None else draw.fixed(apart, PLACES[kind], sign=True)
            judged = f"<br>{page.chip(verdict)}" if verdict else ""
            row[title, DEVIATION] = Html(f"{page.text(apart)}{judged}")
            for key in ("attack", "paper", "ours", "lo", "hi", "deviation", "verdict", "reason"):
                record[f"{column} {key}"] = cell.get(key)
        rows.append(row)
        plain.append(record)
    for scheme in BASELINES:
        row, record = {("", "scheme"): scheme}, {"scheme": scheme}
        for column, kind in COLUMNS.items():
            value, lo, hi, attack = _extra_cell(run, scheme, column)
            ours = _with_interval(value, lo, hi, kind)
            small = f" <small>{page.text(attack)}</small>" if attack and ours else ""
            small += _other_arms(run, scheme, column)
            row[titles[column], OURS] = Html(f"{ours}{small}") if ours else page.chip("not run")
            record |= {f"{column} attack": attack or None, f"{column} ours": value}
            record |= {f"{column} lo": lo, f"{column} hi": hi}
        rows.append(row)
        plain.append(record)
    for name, floor in run.floors.items():
        row, record = {("", "scheme"): FLOORS.get(name, name)}, {"scheme": f"floor {name}"}
        for column in ("uwa", "ga"):
            values = (floor["ssim"], floor.get("lo"), floor.get("hi"))
            row[titles[column], OURS] = _with_interval(*values, "ssim")
            keys = (f"{column} {key}" for key in ("ours", "lo", "hi"))
            record |= dict(zip(keys, values, strict=True))
        rows.append(row)
        plain.append(record)
    if guess := run.table1.get("guess"):
        keys = {"c10": guess["ten"], "c100": guess["transfer"]}
        row, record = {("", "scheme"): "one answer for all"}, {"scheme": "floor guess"}
        for column, value in keys.items():
            row[titles[column], OURS] = Html(_fixed(value, "acc"))
            record[f"{column} ours"] = value
        rows.append(row)
        plain.append(record)
    columns = [("", "scheme")]
    for title in titles.values():
        columns += [(title, c) for c in ("paper", OURS, DEVIATION)]
    frame = pd.DataFrame(
        [[row.get(column, Html("")) for column in columns] for row in rows],
        columns=pd.MultiIndex.from_tuples(columns),
        dtype=object,
    )
    csv = save_table(pd.DataFrame(plain), run.figures / "table1.csv")
    apart = run.table1.get("not_comparable_because")
    judged = (
        "A verdict says whether our interval lies around the paper's value."
        if run.table1.get("comparable")
        else "Values are not comparable with the paper's"
        + (f" ({apart})" if apart else "")
        + ": a verdict says whether a row lies on the same side of pe_same (SSIM) or of plain "
        "(accuracy) as in the paper; the file has the reasons."
    )
    first_floor = len(TABLE1) + len(BASELINES)
    return page.table(
        frame,
        caption=f"Table I. SSIM of the reconstructions (lower: more private) and accuracy. The "
        f"paper's columns are STL-10, STL-10, CIFAR-10 and CIFAR-100. {_scale(run)}{judged} Small: "
        "the attack, whose generator differs by scheme, as in the paper; other ways to augment. "
        "Below the lines: our schemes, and what needs no attack and no training: images without "
        "content, and naming the commonest class of the test images always.",
        quiet=range(first_floor, len(rows)),
        rules=[i for i in (len(TABLE1), first_floor) if i < len(rows)],
        csv=f"{run.figures.name}/{csv.name}",
    )


def _scale(run: Run) -> str:
    """Say how many images and seeds are behind Table I."""
    rows = (run.table1 or {}).get("rows", [])
    n = {
        c: max((r["n"] for r in rows if r["column"] == c and r.get("n")), default=0)
        for c in COLUMNS
    }
    seeds = max((r["seeds"] for r in rows if r.get("seeds")), default=0)
    if not seeds:
        return ""
    return (
        f"{listed([f'{v:,}' for v in n.values()])} test images a column, {count(seeds, 'seed')}. "
    )


# ---------------------------------------------------------------- matrix


def _shaded(row: Mapping[str, Any], bold: bool) -> Html:
    """Write an SSIM on a ground that is darker the more it gives away.

    Where images or seeds cancel, since a negative shows as much, mean |SSIM| stands beneath.
    """
    value, size = row["ssim"], row.get("abs")
    alpha = DARKEST * min(max(value, 0.0), 1.0)
    words = f"<b>{_fixed(value, 'ssim')}</b>" if bold else _fixed(value, "ssim")
    if size is not None and size > abs(value) + CANCELS:
        words += f"<br><small>± {_fixed(size, 'ssim')}</small>"
    return Html(
        '<span style="display:block;margin:-.28rem -.6rem;padding:.28rem .6rem;'
        f'background:rgba(0,114,178,{alpha:.2f})">{words}</span>'
    )


def matrix(run: Run) -> Html:
    """All attacks on all schemes: mean SSIM, the worst of each scheme in bold, floors below."""
    if not run.matrix:
        return page.not_run("The matrix of attacks", SCORE)
    schemes = [s for s in (*SCHEMES, *EXTRAS) if any(key[0] == s for key in run.matrix)]
    attacks = [a for a in ATTACKS if any(key[1] == a for key in run.matrix)]
    highest = {
        s: max(row["ssim"] for key, row in run.matrix.items() if key[0] == s) for s in schemes
    }
    rows: list[list[object]] = []
    rules: list[int] = []
    empty = [Html("")] * len(schemes)

    def group(title: str) -> None:
        rules.append(len(rows))
        rows.append([Html(f"<small>{title}</small>"), *empty])

    known = None
    for attack in attacks:
        has = ATTACKS[attack][0]
        if has != known:
            group(GROUPS[has])
        known = has
        cells: list[object] = []
        for scheme in schemes:
            row = run.matrix.get((scheme, attack))
            cells.append(_shaded(row, row["ssim"] == highest[scheme]) if row else None)
        rows.append([attack, *cells])
    first_floor = len(rows)
    if run.floors:
        group("without the cipher")
    for name, floor in run.floors.items():
        value = Html(_fixed(floor["ssim"], "ssim"))
        rows.append([FLOORS.get(name, name), *[value] * len(schemes)])
    frame = pd.DataFrame(rows, columns=["attack", *schemes], dtype=object)
    plain = [
        {k: row.get(k) for k in ("scheme", "attack", "family", "ssim", "lo", "hi", "abs", "gauss")}
        | {k: row.get(k) for k in ("oracle", "rate", "n", "seeds")}
        for row in run.matrix.values()
    ]
    plain += [
        {"scheme": "floor", "attack": name} | {k: floor.get(k) for k in ("ssim", "lo", "hi", "n")}
        for name, floor in run.floors.items()
    ]
    csv = save_table(pd.DataFrame(plain), run.figures / "matrix.csv")
    table = page.table(
        frame,
        caption="Mean SSIM of every attack's reconstructions; darker gives away more, bold is the "
        "most a scheme gives away to any of them. Lines part what the attacker has; below the last "
        "stands what is scored without looking at the cipher. A low SSIM says that an attack "
        "failed, not that the image is safe; ±: mean |SSIM|, where images or seeds came out as "
        "negatives. The file has the intervals, mean |SSIM|, SSIM with a "
        "Gaussian window and the best evaluation during training (oracle).",
        quiet=range(first_floor, len(rows)),
        rules=rules[1:],
        csv=f"{run.figures.name}/{csv.name}",
    )
    return Html(f"{table}\n{_legend(attacks)}")


def _legend(attacks: Sequence[str]) -> Html:
    rows = [(attack, *ATTACKS[attack]) for attack in attacks]
    frame = pd.DataFrame(rows, columns=["attack", "attacker has", "what it does"], dtype=object)
    return page.table(
        frame,
        caption="What each attack knows beside the ciphers. Nothing: no more. Public images: of "
        "the same kind, not those that were protected. Pairs: plain images with their ciphers "
        "under the same key, or by the same h_p. Insider: the weights that the training of h_p "
        "leaves behind.",
    )


def schemes_table(run: Run) -> Html:
    """List the schemes, their keys, and how the classifier's images were augmented."""
    rows = []
    for scheme in (*SCHEMES, *EXTRAS):
        meta = optional(run.artifacts / "encrypt" / scheme / "meta.json")
        if meta is None and scheme in EXTRAS:
            continue
        stored = any((run.artifacts / "encrypt" / scheme).glob("key-s*.npz"))
        key = "one an image" if (meta or {}).get("keys") == "diff" else "one" if stored else "none"
        classified = scheme in SCHEMES
        order = ", ".join((meta or {}).get("augment") or []) if classified else None
        rows.append([scheme, WHAT[scheme], key if meta else page.chip("not run"), order])
    frame = pd.DataFrame(rows, columns=["scheme", "what it does", "key", "augmented by"])
    return page.table(
        frame.astype(object),
        caption="The schemes. Augmented by: where the classifier's images are cropped and flipped; "
        "client: before they are protected, each epoch anew; server: afterwards. The first is "
        "that of Table I.",
    )


# ---------------------------------------------------------------- images


def _credit(run: Run) -> str:
    texts = dict.fromkeys(str(t) for t in ((run.meta or {}).get("attribution") or {}).values())
    return f" Images: {' '.join(texts)}" if texts else ""


def ciphers(run: Run) -> Html:
    """Fig. 1: images and their ciphers."""
    drawn = draw.cipher_grid(run.artifacts, (*SCHEMES, *EXTRAS))
    if drawn is None:
        return page.not_run("Fig. 1", f"dvc repro stages/{PAPER}/dvc.yaml:encrypt")
    path = save_figure(drawn[0], run.figures / "ciphers.png", drawn[1])
    shown = list(dict.fromkeys(drawn[1].scheme))
    missing = [s for s in SCHEMES if s not in shown]
    lacking = f" Not run: {listed(missing)}." if missing else ""
    return page.figure(
        path,
        alt=f"The first test image of some classes and its ciphers by {listed(shown)}; the SSIM "
        "of every tile is in the CSV",
        caption="Fig. 1. The first image of the first classes, by this rule, and its cipher by "
        f"every scheme with its first key or seed; beneath, the SSIM of the two.{lacking}"
        f"{_credit(run)}",
        wide=True,
        dpi=SCREEN_DPI,
    )


def _roles(run: Run) -> dict[str, dict[str, str]]:
    """Choose the attacks of Fig. 7's columns: head -> {scheme: attack}."""
    free = {
        s: max(rows, key=lambda row: row["ssim"])["attack"]
        for s in SCHEMES
        if (rows := [run.matrix[s, a] for a in FREE if (s, a) in run.matrix])
    }
    return {
        "GA as in paper": {s: _ga(s) for s in SCHEMES},
        "GA by UNet": {s: "ga_unet" for s in SCHEMES if _ga(s) != "ga_unet"},
        "UWA": {s: "uwa_strong" for s in SCHEMES},
        "best free": free,
        "ITN": {s: "itn" for s in SCHEMES},
        "own inverse": {s: "g_ba" for s in SCHEMES},
        "worst": {s: r["worst_attack"] for s, r in run.results.items() if r.get("worst_attack")},
    }


def reconstructions(run: Run) -> Html:
    """Fig. 7: what every kind of attack makes of every scheme's ciphers of one image."""
    if run.meta is None or not run.matrix:
        return page.not_run("Fig. 7", f"dvc repro stages/{PAPER}/dvc.yaml:attack")
    roles = _roles(run)
    most = draw.images_shown(run.meta["attack_size"], small=4, large=1)
    shown = []
    for k in range(min(most, len(run.meta["panel"]))):
        drawn = draw.reconstruction_grid(run.artifacts, roles, SCHEMES, k)
        if drawn is None:
            return page.not_run("Fig. 7", f"dvc repro stages/{PAPER}/dvc.yaml:attack")
        path = save_figure(drawn[0], run.figures / f"reconstructions_{k}.png", drawn[1])
        name = drawn[1]["class"].iloc[0]
        detail = (
            " Beneath each tile the attack and the SSIM of this image. Best free: the best attack "
            "that trains nothing and has no pairs; worst: that of the scheme's highest mean SSIM "
            "among attacks that all schemes met. Own inverse: G_BA. White: the attack is not for "
            "this scheme, or stands beside."
            if k == 0
            else ""
        )
        shown.append(
            page.figure(
                path,
                alt=f"An image of the class {name}, its cipher by every scheme, and what each kind "
                "of attack recovers from it; attacks and SSIM are in the CSV",
                caption=f"Fig. 7 for the image of class {name}, first seed.{detail}{_credit(run)}",
                wide=True,
                dpi=SCREEN_DPI,
            )
        )
    if len(shown) == 1:
        return shown[0]
    more = "\n".join(shown[1:])
    return Html(
        f"{shown[0]}\n<details><summary>{count(len(shown) - 1, 'more image')}</summary>\n"
        f"{more}\n</details>"
    )


# ---------------------------------------------------------------- accuracy against leakage


def _leakage_table(run: Run) -> pd.DataFrame:
    rows = []
    titles = _titles(run)
    for data, column in (("ten", "c10"), ("transfer", "c100")):
        for scheme in SCHEMES:
            result = run.results.get(scheme, {})
            accuracy, worst = result.get(f"acc_{data}"), result.get("worst_ssim")
            if accuracy is None or worst is None:
                continue
            row = run.matrix.get((scheme, result["worst_attack"]), {})
            lo, hi = row.get("lo"), row.get("hi")
            lo, hi = (worst, worst) if lo is None or hi is None else (lo, hi)
            low, high = result.get(f"acc_{data}_ci") or (accuracy, accuracy)
            rows.append(
                (scheme, titles[column], scheme in BASELINES, result["worst_attack"],
                 worst, lo, hi, accuracy, low, high)
            )  # fmt: skip
    columns = ["scheme", "data", "ours", "attack", "ssim", "ssim_lo", "ssim_hi"]
    columns += ["accuracy", "accuracy_lo", "accuracy_hi"]
    return pd.DataFrame(rows, columns=columns)


def leakage(run: Run) -> Html:
    """Accuracy against the SSIM of the worst attack, for both data sets."""
    table = _leakage_table(run)
    if table.empty:
        return page.not_run("Accuracy against leakage", SCORE)
    figure = draw.accuracy_against_leakage(table, run.blank)
    path = save_figure(figure, run.figures / "accuracy_against_leakage.png", table)
    return page.figure(
        path,
        alt="Scatter plot of accuracy against the SSIM of the worst attack, a point a scheme, one "
        "panel a data set; the numbers are in the CSV",
        caption="What a scheme keeps against what it gives away, with 95 % intervals. Upper left "
        "is best. The worst attack is that of the highest mean SSIM among attacks that all "
        "schemes met, insiders left out; dotted: a blank image.",
        dpi=DPI,
    )


# ---------------------------------------------------------------- protection


def _measured(part: Mapping[str, Any], key: str, kind: str) -> Html | None:
    lo, hi = part.get(f"{key}_ci") or (None, None)
    return _with_interval(part.get(key), lo, hi, kind)


def protection(run: Run) -> Html:
    """Show what h_theta and SSIM say of the preliminary set P and of h_p's images."""
    found = run.protection
    if found is None:
        return page.not_run("The protection", SCORE)
    perturb, target = found["perturb"], found["htheta"]
    blank = _fixed(found["blank_test"], "ssim")
    rows: list[list[object]] = [
        ["training images", _measured(perturb, "acc_x", "acc"), None, None],
        ["their P (eqs. 1 to 3)", _measured(perturb, "acc_p", "acc"),
         _measured(perturb, "ssim", "ssim"), None],
        ["blank instead of them", None, _measured(perturb, "ssim_blank", "ssim"), None],
        ["test images", _measured(target, "acc", "acc"), None, None],
        ["blank instead of them", None, Html(blank), None],
    ]  # fmt: skip
    for name, part in found["variants"].items():
        values = [_measured(part, "htheta_acc", "acc"), _measured(part, "ssim_test", "ssim")]
        rows.append([f"their h_p, {name}", *values, _measured(part, "ssim_g_ba_test", "ssim")])
    columns = ["images", "right by h_θ (%)", "SSIM", "SSIM after G_BA"]
    frame = pd.DataFrame(rows, columns=columns, dtype=object)
    csv = save_table(pd.DataFrame(flat(found), columns=["key", "value"]),
                     run.figures / "protection.csv")  # fmt: skip
    return page.table(
        frame,
        caption="The two steps of the protection, judged by the classifier h_θ that they were made "
        "with (claims C8 and C9). SSIM is that with the plain images; the last column is what the "
        "cycle's inverse makes of h_p's. Brackets: 95 % intervals.",
        csv=f"{run.figures.name}/{csv.name}",
    )


def learning_curves(run: Run) -> Html:
    """Draw the terms of the CycleGAN's loss against the pairs that it saw."""
    drawn = draw.learning_curves(run.artifacts, list(run.variants.values()))
    if drawn is None:
        return page.not_run("Learning curves", f"dvc repro stages/{PAPER}/dvc.yaml:transform")
    path = save_figure(drawn[0], run.figures / "learning_curves.png", drawn[1])
    table = drawn[1]
    capped = table[(table.quantity == "capped") & (table.value > 0)]
    names = sorted(set(capped.variant))
    said = (
        f"The guard capped the perceptual terms of {listed(names)}, first at "
        f"{count(int(capped.pairs.min()), 'pair')}."
        if names
        else "The guard never had to cap the perceptual terms."
    )
    return page.figure(
        path,
        alt="Learning curves of the CycleGAN: adversarial, perceptual, classification and "
        "reconstruction terms times their weights, cross entropy of h_θ on protected images and "
        "loss of the discriminators, against the pairs seen; the numbers are in the CSV",
        caption="Eqs. 4 to 9, each term times its weight, so that their sum is what G minimises. "
        f"Thin: one seed; thick: mean of the seeds. {said}",
        dpi=DPI,
    )


def ablation(run: Run) -> Html:
    """Compare the two readings of eq. 9: mean over pixels, and sum."""
    rows = []
    for scheme, reading in ((PROPOSED, "mean, as eq. 7"), ("proposed_sum", "sum, as printed")):
        result = run.results.get(scheme)
        if result is None:
            rows.append([f"{scheme}: {reading}", *[page.chip("not run")] * 6])
            continue
        cells: list[object] = [_measured(result, f"acc_{data}", "acc") for data in DATA]
        for attack in ("ga_unet", "itn", "g_ba"):
            row = run.matrix.get((scheme, attack), {})
            cells.append(_with_interval(row.get("ssim"), row.get("lo"), row.get("hi"), "ssim"))
        rows.append([f"{scheme}: {reading}", *cells, _worst(run, scheme, "worst")])
    titles = _titles(run)
    columns = ["eq. 9", titles["c10"], titles["c100"], "GA (U-Net)", "ITN", "G_BA", "worst"]
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption="Eq. 9 read twice. Eq. 7 divides by the number of pixels, eq. 9 does not: as a sum "
        "it weighs 3 × side² times as much, and asks for a near exact inverse of h_p. Attacks: "
        "SSIM; worst: of the attacks that all schemes met.",
    )


def training_free(run: Run) -> Html:
    """List what the attacks without training recover, and how much of the key they find."""
    rows, plain = [], []
    for scheme in (*SCHEMES, *EXTRAS):
        path = run.artifacts / "cryptanalyse" / scheme / "evaluation.npz"
        if not path.exists():
            continue
        found = read_npz(path)
        rates = {n: a for n, a in found.items() if n in RATES}
        for attack in (*FREE, "kpa_le", "kpa_pe"):
            row = run.matrix.get((scheme, attack))
            mine = [n for n in rates if RATES[n][0] == attack]
            folded = attack in ("fr", "fr_advanced") and "rate_pc1" in rates
            if row is None or not (mine or folded):
                continue
            shares = [f"{RATES[n][1]}: {100 * rates[n].mean():.1f} %" for n in mine]
            paper = run.matrix.get((scheme, _ga(scheme)), {}).get("ssim")
            value = _with_interval(row["ssim"], row.get("lo"), row.get("hi"), "ssim")
            beside = None if paper is None else _fixed(paper, "ssim")
            has = ATTACKS[attack][0]
            rows.append([scheme, attack, has, value, beside, "; ".join(shares) or None])
            plain.append(
                {"scheme": scheme, "attack": attack, "keys": len(found["seeds"])}
                | {k: row.get(k) for k in ("ssim", "lo", "hi")}
                | {n: float(rates[n].mean()) for n in mine}
            )
    if not rows:
        return page.not_run(
            "Attacks without training", f"dvc repro stages/{PAPER}/dvc.yaml:cryptanalyse"
        )
    keys = max(int(entry["keys"]) for entry in plain)
    columns = ["scheme", "attack", "attacker has", "SSIM [95 % CI]", "GA", "of the key found"]
    csv = save_table(pd.DataFrame(plain), run.figures / "training_free.csv")
    return page.table(
        pd.DataFrame(rows, columns=columns, dtype=object),
        caption=f"Attacks that train nothing, over {count(keys, 'key')}, on the schemes that they "
        "are made for. GA: our GAN attack with the paper's generator. By guessing one finds half "
        "of a mask's bits, and of a permutation's places about none.",
        csv=f"{run.figures.name}/{csv.name}",
    )


def kerckhoffs(run: Run) -> Html:
    """Say where the secret of a scheme without a key lies, with what was measured."""
    parts = [
        "h_p has no key",
        judged(run.claims, "C13"),
        ", so its weights are the secret, and all users share it. Whoever holds a client can make "
        "as many pairs of plain and protected images as wanted: an inversion network (itn) is the "
        "natural attack, not one without pairs.",
    ]
    row, ga = (run.matrix.get((PROPOSED, attack)) for attack in ("itn", "ga_unet"))
    if row and ga:
        apart = row["ssim"] - ga["ssim"]
        side = "more" if apart > 0 else "less"
        parts.append(
            f" It reaches an SSIM of {_fixed(row['ssim'], 'ssim')}, "
            f"{abs(apart):.3f} {side} than the GAN attack without pairs."
        )
    insider = run.matrix.get((PROPOSED, "g_ba"))
    if insider:
        parts.append(
            " Whoever trained h_p also holds G_BA, which recovers "
            f"{_fixed(insider['ssim'], 'ssim')}."
        )
    return Html(f'<p class="prose">{sentence(*parts)}</p>')


# ---------------------------------------------------------------- claims and controls


def claims(run: Run) -> Html:
    """All claims with their verdicts, numbers and reasons."""
    return page.claims(run.claims)


def _zero_gradients(run: Run) -> float | None:
    """Share of pixels without a gradient over the steps of eq. 3; mean of the seeds."""
    logs = [
        read_json(path)["log"]
        for path in sorted((run.artifacts / "perturb").glob("history-s*.json"))
    ]
    values = [entry["zero_gradient"] for log in logs for entry in log if "zero_gradient" in entry]
    return sum(values) / len(values) if values else None


def _identity(run: Run, attack: str, claim: str, what: str) -> list[object]:
    """Show what an attack recovers where nothing is hidden, and whether the claim asks for more."""
    row = run.matrix.get(("plain", attack))
    least = next((c for c in run.claims if c["id"] == claim), {}).get("numbers") or {}
    needed = least.get("identity")
    question = f"Can {what} recover anything, were nothing hidden?"
    measure = f"{attack} on plain"
    if row is None:
        return [question, measure, page.chip("not run"), None]
    value = _with_interval(row["ssim"], row.get("lo"), row.get("hi"), "ssim")
    if needed is None:
        return [question, measure, value, None]
    reached = row["ssim"] >= needed
    reads = (
        f"reaches the {needed:g} asked for: its failure on a cipher can mean something"
        if reached
        else f"below the {needed:g} asked for: its low SSIM on the proposed scheme says nothing"
    )
    return [question, measure, value, reads]


def controls(run: Run) -> Html:
    """Show the instruments' own checks: what is measured where the answer is known."""
    rows = [
        _identity(run, "ga_unet", "C1", "the GAN attack with a U-Net"),
        _identity(run, "itn", INVERSION, "the inversion network"),
    ]
    noise = {k[1]: r for k, r in run.matrix.items() if k[0] == "noise" and k[1] in ATTACKS}
    question = "Does any attack find something in AES ciphers?"
    if noise:
        attack = max(noise, key=lambda a: noise[a]["ssim"])
        row = noise[attack]
        value = _with_interval(row["ssim"], row.get("lo"), row.get("hi"), "ssim")
        said = f"most of all attacks{_beside_blank(run, row)}"
        rows.append([question, f"{attack} on noise", value, said])
    else:
        rows.append([question, "noise", page.chip("not run"), None])
    for question, scheme, attack, other in (
        ("Does the loss's reduction decide the unshared-weight attack?",
         "pe_same", "uwa_strong", "uwa_literal"),
        ("Does the generator decide the GAN attack?", "pe_same", "ga_local", "ga_shared"),
        ("Do pairs decide?", PROPOSED, "itn", "ga_unet"),
        ("Does rounding to bytes protect against the insider?", PROPOSED, "g_ba_float", "g_ba"),
    ):  # fmt: skip
        first, second = (run.matrix.get((scheme, a)) for a in (attack, other))
        name = f"{attack} − {other} on {scheme}"
        if first is None or second is None:
            rows.append([question, name, page.chip("not run"), None])
            continue
        said = f"{_fixed(first['ssim'], 'ssim')} against {_fixed(second['ssim'], 'ssim')}"
        rows.append([question, name, page.signed(first["ssim"] - second["ssim"]), said])
    batches = (run.protection or {}).get("variants") or {}
    counts = {n: p["mismatches"] for n, p in batches.items() if p.get("mismatches") is not None}
    question = "Does h_p(x) depend on what else is in the batch?"
    if counts:
        worst = max(counts, key=lambda n: counts[n])
        total = int(sum(counts.values()))
        said = "no pixel differs" if total == 0 else f"most in {worst}"
        rows.append([question, "pixels that differ", total, said])
    else:
        rows.append([question, "pixels that differ", page.chip("not run"), None])
    zero = _zero_gradients(run)
    value = page.chip("not run") if zero is None else f"{100 * zero:.2f} %"
    rows.append(
        ["Do saturated images stop the perturbation?", "pixels without a gradient", value,
         None if zero is None else "mean over the steps of eq. 3"]
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=["question", "measure", "value", "reads"], dtype=object)
    return page.table(
        frame, caption="Controls: what the instruments say where the answer is known."
    )


def deviations(run: Run) -> Html:
    """Where and why this differs from the paper."""
    return page.deviations([*of_scale(run.meta), *of_parameters(_settings(run)), *ALWAYS])


def _settings(run: Run) -> dict[str, Mapping[str, Any]]:
    """Return stage -> its parameters, as the stages merge them."""
    own = section(run.params, f"profiles.{run.profile}.{PAPER}")
    general = run.params.get(PAPER) or {}
    shared = (general.get("shared") or {}) | (own.get("shared") or {})
    stages = [name for name in own if name != "shared"]
    return {name: shared | (general.get(name) or {}) | (own[name] or {}) for name in stages}


def provenance(run: Run, root: Path = Path()) -> Html:
    """List what the page was made from, as far as it is the same on every machine."""
    rows: list[tuple[str, object]] = [("profile", run.profile)]
    if run.meta:
        meta = run.meta
        names = dict.fromkeys(
            str(meta[key]) for key in ("dataset", "transfer_dataset", "attack_dataset")
        )
        rows += [
            ("ten classes", f"{meta['dataset']}, {meta['size']} px: {meta['n_train']:,} train, "
                            f"{meta['n_test']:,} test"),
            ("transfer", f"{meta['transfer_dataset']}, {meta['size']} px: "
                         f"{meta['n_transfer_train']:,} train, {meta['n_transfer_test']:,} test"),
            ("attacks", f"{meta['attack_dataset']}, {meta['attack_size']} px: "
                        f"{meta['n_attack_train']:,} train, {meta['n_attack_test']:,} test"),
        ]  # fmt: skip
        attribution = meta.get("attribution") or {}
        rows += [(f"attribution: {name}", str(said)) for name, said in attribution.items()]
        for name in names:
            rows += fingerprint(name, root)
    facts, parameters = made_of(
        rows,
        PAPER,
        run.profile,
        params=run.params,
        packages=("torch", "torchvision", "numpy", "scipy", "scikit-image", "matplotlib", "dvc"),
        root=root,
    )
    return Html(f"{facts}\n{parameters}")
