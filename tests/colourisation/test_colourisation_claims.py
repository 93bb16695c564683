import math
from dataclasses import replace

import numpy as np
import pytest

from stages.colourisation.claims import TABLE1, Evidence, judge_claims
from stages.colourisation.histories import (
    History,
    change_point,
    collapsed,
    epochs_to,
    last_epochs,
    read_history,
)
from stages.colourisation.score import read_paper
from stages.common.claims import Estimate, Finding
from stages.common.errors import InputError
from stages.common.files import write_json

PAPER = read_paper()
VARIANTS = (*TABLE1, "ibn_sn", "bn_sn_lam33", "bn_sn_unnormed")
# A world in which every claim is true. Table I's own numbers, and invented ones for the rest.
TRUE = {
    c.axes["variant"]: {
        m.metric: m.paper for m in PAPER.cells if m.axes["variant"] == c.axes["variant"]
    }
    for c in PAPER.cells
    if c.axes["variant"] in TABLE1
}
TRUE |= {v: dict(TRUE["bn_sn"]) for v in ("ibn_sn", "bn_sn_unnormed", "bn_sn_lam33")}
for i, v in enumerate(("bn", "in", "in_sn", "ibn_sn", "bn_sn", "bn_sn_unnormed")):
    level = 4 if v in ("bn_sn", "bn_sn_unnormed") else i
    TRUE[v] |= {"chroma": 10.0 + level, "m3": 20.0 + level, "hf": 3.0 + level}
TRUE["bn_sn_md"] |= {"chroma": 17.0, "m3": 27.0, "hf": 9.0}
TRUE["ibn_sn_md"] |= {"chroma": 17.0, "m3": 27.0, "hf": 9.0}
TRUE["bn_sn_lam33"] |= {"l1": 11.4, "chroma": 16.8, "m3": 26.0, "hf": 8.0}
TRUE["bn_sn_md"]["lperc"] = 58.2  # Table I's C6 is smaller than any interval here
TRUE["bn"] |= {"l1_train": 8.0}
TRUE["bn_sn"] |= {"l1_train": 10.0}
for v, far in (("bn", 2.0), ("bn_sn", 1.0)):
    TRUE[v] |= {f"{d}_{c}": far for d in ("dhist", "js", "w1") for c in "ab"}
BASELINES = {
    "grey": {"l1": 10.25, "lperc": 70.0, "l1_train": 10.0},
    "mean_ab": {"l1": 10.01, "lperc": 71.0},
    "random_hue": {"l1": 12.15, "lperc": 66.0},
}


def estimates(world: dict, seeds: int = 2, spread: float = 0.01, split: float = 0.0) -> dict:
    """Means with independent normal resamples; the seeds of one of them lie 2 x ``split`` apart."""
    rng = np.random.default_rng(0)

    def each_seed(variant: str, metric: str, value: float) -> tuple[float, ...]:
        apart = split if (variant, metric) == ("ibn_sn_md", "lperc") else 0.0
        return tuple(float(v) for v in value + np.linspace(-apart, apart, seeds))

    return {
        v: {
            m: Estimate(float(x), rng.normal(x, spread, 2000), each_seed(v, m, x))
            for m, x in metrics.items()
        }
        for v, metrics in world.items()
    }


def history(
    *,
    epochs: int = 20,
    d_loss: float = 0.2,
    share: float = 0.5,
    g_adv: np.ndarray | None = None,
    l1_train: np.ndarray | None = None,
    gap: float = 1.0,
) -> History:
    steps = np.arange(1, 10 * epochs + 1, dtype=np.float64)
    at = steps / 10
    each = np.full(epochs, 0.5) if g_adv is None else g_adv
    train = np.linspace(12, 8, epochs) if l1_train is None else l1_train
    return History(
        steps=len(steps),
        log={
            "d_loss": (steps, at, np.full(len(steps), d_loss)),
            "adv_share": (steps, at, np.full(len(steps), share)),
            "g_adv": (steps, at, np.repeat(each, 10)),
        },
        epochs=np.arange(1, epochs + 1, dtype=np.float64),
        l1_train=train,
        l1_val=train + gap,
    )


def sudden(epochs: int = 24, *, at: int = 17, fall: float = -0.4, rise: float = 1.0) -> History:
    wobble = 0.1 * np.cos(3 * np.arange(epochs))
    later = np.arange(epochs) >= at
    return history(epochs=epochs, g_adv=0.9 + wobble + fall * later, l1_train=9.0 + rise * later)


TRUE_RUNS = {
    "bn": [history(d_loss=0.01, l1_train=np.linspace(12, 7, 24), gap=3.0, epochs=24)] * 2,
    "bn_sn": [history(l1_train=np.linspace(12, 8.5, 24), epochs=24)] * 2,
    "ibn_sn": [sudden(), sudden(at=18)],
}


def evidence(changes: dict | None = None, *, runs: dict | None = None, **options) -> Evidence:
    world = {v: dict(metrics) for v, metrics in TRUE.items()}
    for v, metrics in (changes or {}).items():
        if v in world:
            world[v] |= metrics
    return Evidence(
        scores=estimates(world, **options),
        baselines=estimates(
            {b: m | (changes or {}).get(b, {}) for b, m in BASELINES.items()}, seeds=1
        ),
        histories={**TRUE_RUNS, **(runs or {})},
        n=100,
        level=0.95,
        permutations=200,
    )


def find(id: str, evidence: Evidence) -> Finding:
    only = replace(PAPER, claims={id: PAPER.claims[id]})
    return judge_claims(evidence, only)[0]


def test_every_claim_can_be_supported():
    findings = judge_claims(evidence(), PAPER)
    assert {f.id: f.verdict for f in findings} == dict.fromkeys(PAPER.claims, "supported")
    assert {f.seeds for f in findings} == {1, 2}  # 1: X2, on baselines alone
    assert all(f.reason and f.effect is not None for f in findings)


AGAINST = {
    "C1": {"bn": {"lperc": 50.0}},
    "C2": {"bn_sn_md": {"l1": 9.0}},
    "C3": {"in": {"l1": 9.0}},
    "C4": {v: {"lperc": 50 + TRUE[v]["l1"]} for v in TABLE1},
    "C5": {"in_sn": {"lperc": 65.0}},
    "C6": {"bn_sn_md": {"lperc": 60.0}},
    "C7": {"ibn_sn_md": {"l1": 12.0}},
    "C8": {"bn_sn": {"dhist_a": 3.0}},
    "C9": {"bn_sn_md": {"m3": 1.0}},
    "C10": {"bn_sn_md": {"hf": 1.0}},
    "C11": {"bn_sn_md": {"chroma": 9.0}},
    "C16": {"ibn_sn_md": {"lperc": 60.0}},
    "X1": {"bn": {"l1": 9.0}},
    "X2": {"random_hue": {"lperc": 75.0}},
    "X3": {"bn_sn_unnormed": {"hf": 9.0}},
    "X4": {"bn_sn_lam33": {"chroma": 14.5}},
}
OPEN = {
    "C1": {"bn_sn": {"lperc": TRUE["ibn_sn_md"]["lperc"]}},
    "C2": {"bn_sn_md": {"l1": TRUE["bn"]["l1"]}},
    "C3": {"in": {"psnr": TRUE["bn"]["psnr"]}},
    "C5": {"in_sn": {"lperc": TRUE["in"]["lperc"]}},
    "C6": {"bn_sn_md": {"lperc": TRUE["bn_sn"]["lperc"]}},
    "C7": {"ibn_sn_md": {"l1": TRUE["bn_sn_md"]["l1"]}},
    "C8": {"bn_sn": {"dhist_b": 2.0}},
    "C9": {"bn_sn_md": {"chroma": TRUE["bn_sn"]["chroma"]}},
    "C10": {"bn_sn_md": {"hf": TRUE["bn_sn"]["hf"]}},
    "C11": {"ibn_sn_md": {"chroma": TRUE["bn"]["chroma"]}},
    "C16": {"ibn_sn_md": {"lperc": 1.01 * TRUE["bn_sn_md"]["lperc"]}},
    "X1": {"bn": {"l1": 0.95 * 10.01}},
    "X2": {"random_hue": {"lperc": 70.0}},
    "X3": {"bn_sn_unnormed": {"hf": 1.05 * TRUE["bn_sn"]["hf"]}},
    "X4": {"bn_sn_lam33": {"chroma": 14 + 0.6667 * 3}},
}


@pytest.mark.parametrize("id", AGAINST)
def test_a_claim_is_contradicted_by_numbers_on_the_other_side(id):
    assert find(id, evidence(AGAINST[id])).verdict == "contradicted"


@pytest.mark.parametrize("id", OPEN)
def test_a_claim_is_inconclusive_where_the_interval_reaches_both_sides(id):
    assert find(id, evidence(OPEN[id])).verdict == "inconclusive"


def test_a_rank_correlation_of_near_ties_is_inconclusive():
    alike = {v: {"l1": 10.0 + 0.001 * i, "lperc": 60.0} for i, v in enumerate(TABLE1)}
    assert find("C4", evidence(alike)).verdict == "inconclusive"


@pytest.mark.parametrize("id", ["C1", "C7"])
def test_seeds_that_disagree_are_inconclusive(id):
    assert find(id, evidence(split=0.1)).verdict == "supported"
    finding = find(id, evidence(split=9.0))
    assert finding.verdict == "inconclusive"
    assert "the seeds disagree" in finding.reason


NEEDS = {
    **dict.fromkeys(("C1", "C3", "C4"), TABLE1),
    "C2": ("bn", "bn_sn", "bn_sn_md", "ibn_sn_md"),
    "C5": ("bn", "bn_sn", "in", "in_sn"),
    "C6": ("bn_sn", "bn_sn_md"),
    **dict.fromkeys(("C7", "C16"), ("bn_sn_md", "ibn_sn_md")),
    **dict.fromkeys(("C8", "C12", "C13", "C14"), ("bn", "bn_sn")),
    **dict.fromkeys(("C9", "C10"), ("bn_sn", "bn_sn_md")),
    "C11": ("bn", "bn_sn", "bn_sn_md", "ibn_sn_md"),
    "C15": ("bn_sn", "ibn_sn"),
    "X1": ("bn",),
    "X2": (),
    "X3": ("bn_sn", "bn_sn_unnormed"),
    "X4": ("bn_sn", "bn_sn_md", "bn_sn_lam33"),
}


@pytest.mark.parametrize("absent", VARIANTS)
def test_exactly_the_claims_that_need_a_missing_variant_are_not_run(absent):
    full = evidence()
    without = replace(
        full,
        scores={v: s for v, s in full.scores.items() if v != absent},
        histories={v: h for v, h in full.histories.items() if v != absent},
        missing={absent: f"{absent} has no evaluation"},
    )
    findings = judge_claims(without, PAPER)
    assert {f.id for f in findings if f.verdict == "not run"} == {
        id for id, needed in NEEDS.items() if absent in needed
    }
    assert {f.reason for f in findings if f.verdict == "not run"} == {f"{absent} has no evaluation"}


def test_a_variant_that_is_not_among_the_parameters_is_named():
    full = evidence()
    without = replace(full, scores={v: s for v, s in full.scores.items() if v != "bn"})
    finding = find("X1", without)
    assert (finding.verdict, finding.reason) == ("not run", "bn is not among the variants")


# ---------------------------------------------------------------- training curves


def test_collapse_is_a_perfect_discriminator_or_a_negligible_gradient():
    limits = {"threshold": 0.05, "window": 0.5}
    assert collapsed(history(d_loss=0.01), **limits)
    assert collapsed(history(share=0.01), **limits)
    assert not collapsed(history(), **limits)


def test_collapse_is_judged_on_the_last_half_only():
    run = history()
    steps, at, values = run.log["d_loss"]
    early = np.where(steps <= run.steps / 2, 0.0, values)
    assert not collapsed(
        replace(run, log={**run.log, "d_loss": (steps, at, early)}), threshold=0.05, window=0.5
    )


def test_c12_is_contradicted_only_by_long_runs_or_a_collapse_of_bn_sn():
    def verdict(bn: History, bn_sn: History) -> str:
        return find("C12", evidence(runs={"bn": [bn] * 2, "bn_sn": [bn_sn] * 2})).verdict

    assert verdict(history(epochs=16), history(epochs=16)) == "contradicted"
    assert verdict(history(epochs=8), history(epochs=8)) == "inconclusive"
    assert verdict(history(d_loss=0.0, epochs=8), history(epochs=8)) == "supported"
    assert verdict(history(d_loss=0.0, epochs=8), history(d_loss=0.0, epochs=8)) == "contradicted"
    assert verdict(history(epochs=2), history(epochs=2)) == "not run"


def test_c12_needs_two_runs_that_agree():
    one = {"bn": [history(d_loss=0.0)], "bn_sn": [history()]}
    assert find("C12", evidence(runs=one)).verdict == "inconclusive"
    two = {"bn": [history(d_loss=0.0), history()], "bn_sn": [history()] * 2}
    assert find("C12", evidence(runs=two)).verdict == "inconclusive"


def test_c12_is_not_run_where_the_game_was_not_logged():
    silent = replace(history(), log={})
    finding = find("C12", evidence(runs={"bn": [silent] * 2}))
    assert (finding.verdict, finding.reason) == (
        "not run",
        "d_loss of bn was not logged to the end",
    )


def test_c13_follows_the_interval_and_the_last_quarter():
    assert find("C13", evidence({"bn": {"l1_train": 12.0}})).verdict == "inconclusive"
    steady = {"bn": [history(l1_train=np.full(24, 10.0), gap=0.5, epochs=24)] * 2}
    against = evidence({"bn": {"l1_train": 12.0}}, runs=steady)
    assert find("C13", against).verdict == "contradicted"
    assert find("C13", evidence({"bn": {"l1_train": 10.0}})).verdict == "inconclusive"
    short = {"bn": [history(epochs=3)] * 2}
    assert find("C13", evidence(runs=short)).verdict == "not run"


def test_c14_compares_the_epochs_to_a_tenth_below_grey():
    fast = history(l1_train=np.linspace(12, 5, 20))
    slow = history(l1_train=np.linspace(12, 8, 20))
    never = history(l1_train=np.full(20, 12.0))

    def finding(bn: History, bn_sn: History) -> Finding:
        return find("C14", evidence(runs={"bn": [bn] * 2, "bn_sn": [bn_sn] * 2}))

    assert finding(fast, slow).verdict == "supported"
    assert finding(fast, slow).effect == epochs_to(slow, 9.0) - epochs_to(fast, 9.0) > 0
    assert finding(slow, fast).verdict == "contradicted"
    assert finding(fast, never).verdict == "supported"
    assert finding(slow, slow).verdict == "inconclusive"
    unreached = finding(never, never)
    assert (unreached.verdict, unreached.effect) == ("inconclusive", None)
    assert "never and never" in unreached.reason


def test_c15_sees_a_sudden_gain_and_needs_twenty_epochs():
    def finding(run: History) -> Finding:
        return find("C15", evidence(runs={"ibn_sn": [run] * 2}))

    assert finding(sudden()).verdict == "supported"
    assert finding(sudden(fall=0.4)).verdict == "contradicted"
    assert finding(sudden(rise=-1.0)).verdict == "contradicted"
    assert finding(sudden(fall=0.0)).verdict == "inconclusive"
    short = finding(sudden(16, at=12))
    assert short.verdict == "not run"
    assert short.reason == ("the test needs 20 epochs, the shortest run of ibn_sn and bn_sn has 16")


def test_x4_says_nothing_where_several_discriminators_do_nothing():
    nothing = {"bn_sn_md": {"chroma": TRUE["bn_sn"]["chroma"]}}
    finding = find("X4", evidence(nothing))
    assert finding.verdict == "inconclusive"
    assert finding.reason.startswith("no effect of several discriminators on chroma")


def test_x4_holds_for_effects_of_either_sign():
    mirrored = {"bn_sn_md": {"l1": 10.0}, "bn_sn_lam33": {"l1": 10.1}}
    finding = find("X4", evidence(mirrored))
    assert finding.verdict == "supported"
    assert "l1 87%" in finding.reason  # -0.66 of -0.76


def test_x1_takes_the_better_of_the_two_constant_colours():
    better_grey = evidence({"grey": {"l1": 9.0}, "bn": {"l1": 8.8}})
    assert find("X1", better_grey).verdict == "supported"
    assert find("X1", evidence({"bn": {"l1": 8.8}})).verdict == "contradicted"


def test_a_change_point_is_found_where_the_mean_jumps():
    values = np.array([0.0] * 6 + [1.0] * 9)
    k, p = change_point(values, permutations=999, seed=0)
    assert k == 6
    assert p == pytest.approx(2 / 5005, abs=0.002)  # 2 of the C(15, 6) orders are as extreme
    assert change_point(values, permutations=999, seed=0) == (k, p)


def test_a_constant_series_has_no_change_point():
    assert change_point(np.ones(20), permutations=50, seed=0)[1] == 1.0
    with pytest.raises(ValueError, match="needs 2 values, there are 1"):
        change_point(np.ones(1), permutations=5, seed=0)


def test_the_last_quarter_is_at_least_one_epoch():
    assert last_epochs(history(epochs=20), 0.25) == slice(15, None)
    assert last_epochs(history(epochs=2), 0.25) == slice(1, None)


def test_a_history_file_is_read_by_epoch(tmp_path):
    path = tmp_path / "history-s0.json"
    log = [{"step": s, "epoch": s / 4, "l1": s, "g_adv": s} for s in (2, 4, 6, 8)]
    log[1]["adv_share"] = 0.3
    epochs = [{"epoch": e, "step": 4 * e, "l1_train": 9.0 - e, "l1_val": 9.5} for e in (1.0, 2.0)]
    write_json(path, {"steps_per_epoch": 4, "steps": 8, "log": log, "epochs": epochs})
    run = read_history(path)
    assert run.by_epoch("g_adv").tolist() == [3.0, 7.0]
    assert run.tail("g_adv", 0.5).tolist() == [6.0, 8.0]
    assert run.tail("adv_share", 0.5).tolist() == [0.3]  # nothing late: the last there is
    assert epochs_to(run, 7.0) == 2.0
    assert epochs_to(run, 1.0) == math.inf


def test_a_wrong_history_file_is_named(tmp_path):
    path = tmp_path / "history-s0.json"
    write_json(path, {"steps": 8, "log": []})
    with pytest.raises(InputError, match="history-s0.json: is not the history.*'epochs'"):
        read_history(path)
    for value, words in (("NaN", "is not a readable.*NaN"), ("1e999", "has values of 'l1_train'")):
        entry = f'{{"epoch": 1, "l1_train": {value}, "l1_val": 1}}'
        path.write_text(f'{{"steps": 8, "log": [], "epochs": [{entry}]}}')
        with pytest.raises(InputError, match=f"history-s0.json: {words}"):
            read_history(path)
