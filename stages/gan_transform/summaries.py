"""The numbers of every scheme, of every attack on it, and of the protection itself.

<scheme>.json is flat, so that ``dvc metrics`` shows it: numbers stand as scalars, intervals and
seeds as lists, which it leaves out. What was not measured is not there, or None in a table.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stages.common.claims import Estimate, MissingEvidenceError
from stages.gan_transform.claims import (
    INSIDERS,
    PROTECTED,
    Evidence,
    common_attacks,
    primary_arm,
)
from stages.gan_transform.evaluations import DATASETS, FLOORS, Arrays

SCHEMES = ("plain", "tanaka", "pe_same", "pe_diff", "noise", "proposed", "proposed_sum")
ATTACKS = (
    *("raw", "ga_blockwise", "ga_shared", "ga_local", "ga_unet"),
    *("uwa_literal", "uwa_strong", "uwa_block", "itn", "g_ba", "g_ba_float"),
    *("fr", "fr_advanced", "pc1", "qap", "kpa_le", "kpa_pe"),
)
PAIRED = ("uwa_", "itn", "kpa_")  # how the names of attacks with known pairs begin


def in_order(names: Sequence[str], order: Sequence[str]) -> list[str]:
    """Sort by the order, and what it does not name behind it by name."""
    rank = {name: i for i, name in enumerate(order)}
    return sorted(names, key=lambda name: (rank.get(name, len(order)), name))


def family(attack: str) -> str:
    """Say what an attack is: gan, pairs, insider, free (no training, no pairs) or raw (none)."""
    if attack == "raw":
        return "raw"
    if attack in INSIDERS:
        return "insider"
    if attack.startswith(PAIRED):
        return "pairs"
    return "gan" if attack.startswith("ga_") else "free"


def unpaired(attack: str) -> bool:
    """Say whether the attacker has no pairs of an image and its cipher: the paper's setting."""
    return family(attack) in ("raw", "free", "gan")


def _mean(arrays: Arrays, name: str) -> float | None:
    return float(arrays[name].mean(dtype=np.float64)) if name in arrays else None


def _stated(name: str, estimate: Estimate, level: float) -> dict[str, Any]:
    return {
        name: estimate.value,
        f"{name}_ci": list(estimate.interval(level)),
        f"{name}_seeds": list(estimate.seeds),
    }


def compared_attacks(evidence: Evidence) -> list[str]:
    """Return the attacks of the worst case (C2b); none if they were not run on all its schemes."""
    try:
        return common_attacks(evidence, PROTECTED)
    except MissingEvidenceError:
        return []


def summarise(evidence: Evidence, scheme: str, rates: Arrays) -> dict[str, Any]:
    """Return the flat JSON of a scheme.

    Parameters
    ----------
    rates : its attacks' arrays, of which the shares of a key that were found are kept.
    """
    scores, level = evidence.scores[scheme], evidence.level
    found: dict[str, Any] = {}
    for dataset in DATASETS:
        for metric in scores:
            if metric.startswith(f"acc_{dataset}_"):
                primary = metric == f"acc_{dataset}_{primary_arm(scheme)}"
                found |= _stated(f"acc_{dataset}" if primary else metric, scores[metric], level)
    for metric, estimate in scores.items():
        if metric.startswith("ssim_") or metric == "htheta_acc":
            found |= _stated(metric, estimate, level)
    for name in rates:
        if name.startswith("rate_"):
            found[name] = _mean(rates, name)
    attacks = compared_attacks(evidence)
    if attacks and set(attacks) <= set(evidence.attacks(scheme)):
        for name, some in (("", attacks), ("_unpaired", [a for a in attacks if unpaired(a)])):
            reached = {attack: scores[f"ssim_{attack}"].value for attack in some}
            found[f"worst{name}_attack"] = max(reached, key=lambda attack: reached[attack])
            found[f"worst{name}_ssim"] = reached[found[f"worst{name}_attack"]]
    return found


def matrix(evidence: Evidence, arrays: Mapping[str, Arrays]) -> dict[str, Any]:
    """Return every attack on every scheme, and the floors.

    Parameters
    ----------
    arrays : scheme -> the SSIMs of its ciphers as ``ssim_raw``, and what attacks reached.
    """
    rows = []
    for scheme in in_order(list(evidence.scores), SCHEMES):
        for attack in in_order(evidence.attacks(scheme), ATTACKS):
            estimate = evidence(scheme, f"ssim_{attack}")
            lo, hi = estimate.interval(evidence.level)
            per_image = np.abs(arrays[scheme][f"ssim_{attack}"])
            rows.append(
                {
                    "scheme": scheme,
                    "attack": attack,
                    "family": family(attack),
                    "ssim": estimate.value,
                    "lo": lo,
                    "hi": hi,
                    "abs": float(per_image.mean(dtype=np.float64)),
                    "gauss": _mean(arrays[scheme], f"gauss_{attack}"),
                    "oracle": _mean(arrays[scheme], f"oracle_{attack}"),
                    "rate": _mean(arrays[scheme], f"rate_{attack}"),
                    "n": evidence.n["attack"],
                    "seeds": len(estimate.seeds),
                }
            )
    floors = []
    for name in FLOORS:
        for where in ("attack", "test"):
            floor = evidence.floor(f"{name}_{where}")
            lo, hi = floor.interval(evidence.level)
            floors.append(
                {
                    "name": name,
                    "where": where,
                    "ssim": floor.value,
                    "lo": lo,
                    "hi": hi,
                    "n": evidence.n[where],
                }
            )
    attacks = in_order(list({row["attack"] for row in rows}), ATTACKS)
    return {"attacks": attacks, "level": evidence.level, "rows": rows, "floors": floors}


def protection(
    evidence: Evidence, variants: Mapping[str, str], guards: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Return what P and h_p hide and keep.

    Parameters
    ----------
    variants : scheme -> the CycleGAN whose h_p it is.
    guards : scheme -> a seed's guard each, as the training logged it.
    """

    def stated(**estimates: Estimate) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, estimate in estimates.items():
            found |= _stated(name, estimate, evidence.level)
        return found

    of = evidence.of_target
    return {
        "htheta": {"n": evidence.n["test"], **stated(acc=of("acc"))},
        "perturb": {
            "n": evidence.n["train"],
            **stated(
                acc_x=of("acc_x"),
                acc_p=of("acc_p"),
                ssim=of("ssim"),
                ssim_blank=of("ssim_blank"),
            ),
        },
        "blank_test": evidence.floor("blank_test").value,
        "variants": {
            scheme: {
                "variant": variant,
                **stated(
                    htheta_acc=evidence(scheme, "htheta_acc"),
                    ssim_test=evidence(scheme, "test_ssim"),
                    ssim_g_ba_test=evidence(scheme, "test_ssim_g_ba"),
                ),
                "mismatches": int(sum(evidence.mismatches[scheme])),
                "guard": list(guards[scheme]),
            }
            for scheme, variant in variants.items()
        },
    }
