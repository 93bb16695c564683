"""The results of ``bench`` as a page that a forge shows."""

from collections.abc import Mapping
from pathlib import Path

from stages.common.files import read_json, write_text

TEXT = """\
# Speed on {device}

Made by `make bench` from [{file}]({file}); how it is measured stands in
`tests/benchmarks/timing.py` and `steps.py`. {rounds} rounds in which all ways take turns, medians
[least, largest]. Seconds are those in which the process had a core (of a GPU: CUDA's events; of
ways in processes of their own the wall clock's). Load average of the machine before {before} and
after {after} ({cores} cores): {quiet}.

{machine}

Measured peak, one thread: {peak}.

"""


def three(value: Mapping[str, float] | None, digits: str = ".3g") -> str:
    """Write "1.2 [1.1, 1.3]"."""
    if value is None:
        return ""
    return f"{value['median']:{digits}} [{value['min']:{digits}}, {value['max']:{digits}}]"


def seconds(value: Mapping[str, float]) -> str:
    """Write seconds in a unit that suits their median."""
    units = {"s": 1, "ms": 1e3, "µs": 1e6}
    unit = next((u for u, factor in units.items() if value["median"] * factor >= 1), "µs")
    factor = units[unit]
    return f"{three({k: v * factor for k, v in value.items()})} {unit}"


def rate(entry: Mapping) -> str:
    """Write what is done in a second."""
    parts = []
    if "images_per_s" in entry:
        parts.append(f"{entry['images_per_s']:,.3g} images/s".replace("e+0", "e"))
    if "GFLOP_per_s" in entry:
        share = entry.get("share_of_peak")
        of = f" ({100 * share:.0f} % of peak)" if share is not None else ""
        parts.append(f"{entry['GFLOP_per_s']:.3g} GFLOP/s{of}")
    if "GB_per_s" in entry:
        share = entry.get("share_of_copy")
        of = f" ({100 * share:.0f} % of copy)" if share is not None else ""
        parts.append(f"{entry['GB_per_s']:.3g} GB/s{of}")
    return ", ".join(parts)


def memory(entry: Mapping) -> str:
    """Write the peak, or why there is none."""
    found = entry["peak_memory"]
    return f"{found['MiB']:.0f} MiB" if "MiB" in found else found["not_measured"]


def table(name: str, entry: Mapping) -> str:
    """Return one item's table."""
    first = entry["ours"]
    others = list(entry["ways"][first].get("times_as_fast_as", {}))
    head = ["way", "seconds a call", "rate", "peak memory", *(f"against {o}" for o in others)]
    lines = [f"## {name}", "", entry["what"] + verdict(entry) + ".", ""]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for way in sorted(entry["ways"], key=lambda way: way != first):
        found = entry["ways"][way]
        if "not_measured" in found:
            lines.append(f"| {way} | not measured: {found['not_measured']} |")
            continue
        faster = found.get("times_as_fast_as", {})
        label = f"**{way}**" if way == first else way
        row = [f"{label}: {found['what']}", seconds(found["seconds"]), rate(found), memory(found)]
        row += [
            f"{three(faster.get(other))}" + (" x" if other in faster else "") for other in others
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def slowest(stages: Mapping) -> str:
    """Return the table of the stages that took longest when the embedded profile last ran."""
    head = (
        f"## The slowest stages of `embedded`\n\nAs recorded in `reports/provenance` when they last"
        f" ran, without the start of their processes; all {stages['count']}:"
        f" {stages['seconds']:.0f} s.\n\n| stage | seconds |\n|---|---|\n"
    )
    rows = [f"| {row['stage']} | {row['seconds']:.1f} |" for row in stages["slowest"]]
    return head + "\n".join(rows)


def verdict(entry: Mapping) -> str:
    """Say whether the target is reached."""
    if "reached" not in entry:
        return ""
    ratio = entry["ways"][entry["ours"]]["times_as_fast_as"][entry["baseline"]]["median"]
    said = "reached" if entry["reached"] else "**not** reached"
    return f"; target {entry['target']:g} times as fast as {entry['baseline']}: {said}, {ratio:.2f}"


def render(results: Mapping, file: str) -> str:
    """Return the page of one device."""
    device, run = results["device"], results["run"]
    peak = run["peak"]
    rates = [
        f"{k} {three(peak[k]['TFLOP_per_s'])} TFLOP/s ({peak[k]['what']})" for k in ("fp32", "bf16")
    ]
    rates.append(f"copy {three(peak['copy']['GB_per_s'])} GB/s ({peak['copy']['what']})")
    packages = ", ".join(f"{k} {v}" for k, v in device["packages"].items())
    gpu = "" if device["gpu"] == "none used" else f"{device['gpu']}, CUDA {device['cuda']}; "
    busy = max(run["load_before"][0], run["load_after"][0]) > 0.5 + 0.5 * device["cores"]
    quiet = (
        "other programs ran beside it: ratios hold better than seconds"
        if busy
        else "little else ran beside it"
    )
    text = TEXT.format(
        device=device["gpu"] if gpu else f"{device['cores']} CPU cores",
        file=file,
        rounds=run["repeats"],
        before=f"{run['load_before'][0]:.1f}",
        after=f"{run['load_after'][0]:.1f}",
        cores=device["cores"],
        quiet=quiet,
        machine=f"{gpu}{device['processor']}, {device['instruction_set']};"
        f" Python {device['python']}, {packages}.",
        peak="; ".join(rates),
    )
    parts = [slowest(run["stages"])] if run["stages"]["count"] else []
    parts += [table(name, entry) for name, entry in results["items"].items()]
    if results["not_measured"]:
        lines = [f"- {name}: {why}" for name, why in results["not_measured"].items()]
        parts.append("\n".join(["## Not measured", "", *lines]))
    return text + "\n\n".join(parts) + "\n"


def write_page(path: Path) -> None:
    """Write the page beside the JSON."""
    write_text(path.with_suffix(".md"), render(read_json(path), path.name))


GROWTH = """\
# How cost grows

Made by `tests/benchmarks/growth.py` from [growth.json](growth.json). Work is doubled twice; CPU
seconds, the least of {runs} runs; memory: how far the largest process rises above its imports. The
exponent is that of the last doubling: 1 is linear, less shows a constant part. Load average before
{before} and after {after} ({cores} cores).

| stage | what is doubled | work | CPU seconds | peak MiB | exponent |
|---|---|---|---|---|---|
"""


def growth_page(results: Mapping) -> str:
    """Return the page of ``growth``."""
    run = results["run"]
    load = {"before": run["load_before"][0], "after": run["load_after"][0]}
    text = GROWTH.format(
        runs=run["runs"], cores=run["cores"], **{k: f"{v:.1f}" for k, v in load.items()}
    )
    for stage in results["stages"].values():
        for factor, found in stage["factors"].items():
            cells = [
                ", ".join(f"{row[key]:{form}}" for row in found["rows"])
                for key, form in (("work", "g"), ("cpu_s", ".3g"), ("peak_MiB", ".0f"))
            ]
            exponent = f"{found['exponent']:.2f}" + ("" if found["near_linear"] else " (!)")
            text += f"| {stage['what']} | {factor} | {' | '.join(cells)} | {exponent} |\n"
    if "large" in results:
        text += f"\n## Images of 256 px\n\n{results['large']['what']}; MiB.\n\n"
        columns = (
            ("images", "images"),
            ("images_MiB", "as bytes"),
            ("read_peak_MiB", "peak of reading"),
            ("beyond_MiB", "beyond the device's"),
            ("write_peak_MiB", "peak of writing"),
            ("file_MiB", "file"),
        )
        text += f"| {' | '.join(c for _, c in columns)} |\n|" + "---|" * len(columns) + "\n"
        for row in results["large"]["rows"]:
            text += f"| {' | '.join(f'{row[k]:.0f}' for k, _ in columns)} |\n"
        more = results["large"]["extrapolated_to_50000"]
        text += (
            f"\nIn proportion, 50,000 images take {more['images_GB']:.1f} GB, reading them at most"
            f" {more['beyond_device_GB']:.2f} GB beyond the device's, writing them at most"
            f" {more['write_peak_GB']:.2f} GB beside the array itself.\n"
        )
    for name, why in results["not_measured"].items():
        text += f"\nNot measured: {name}: {why}\n"
    return text
