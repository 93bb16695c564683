import math

from stages.deep_features.claims import CLAIMS
from stages.deep_features.score import read_paper
from stages.deep_features.summaries import MODELS, differences

PAPER = read_paper()
IDS = ["C1", "C2", "C3", "C4", "C4b", *(f"C{i}" for i in range(5, 18))]


def test_every_claim_has_a_test_and_every_test_a_claim():
    assert list(PAPER.claims) == list(CLAIMS) == IDS


def test_margins_are_those_of_the_specification_or_said_to_be_ours():
    deltas = {id: claim.delta for id, claim in PAPER.claims.items() if claim.delta is not None}
    ours = {"C12": 0.05, "C13": 0.01, "C17": 0.1}
    assert deltas == {"C2": 0.005, "C6": 1e-6, "C15": 0.1, **ours}
    numbers = {id: claim.numbers for id, claim in PAPER.claims.items() if claim.numbers}
    assert numbers == {
        "C1": {"ids": 5},
        "C3": {"minority": 0.1},
        "C9": {"keys": 2.63e35, "released": 1},
        "C12": {"keys": 100, "weak": 0.36},
    }


def test_the_printed_number_of_keys_is_32_factorial():
    (printed,) = [cell.paper for cell in PAPER.cells if cell.id == "key/space32"]
    assert printed == float(f"{math.factorial(32):.2e}")


def test_the_outside_reference_is_whole_and_not_called_the_papers():
    zoo = [cell for cell in PAPER.cells if cell.id.startswith("reid/")]
    assert [(c.axes["model"], c.metric) for c in zoo] == [
        (model, metric) for model in MODELS for metric in ("rank1", "mAP", "mINP")
    ]
    assert all(0 < float(c.paper or 0) < 100 for c in zoo)


def test_figures_say_what_they_compare_and_which_claim_checks_them():
    figures = {figure["id"]: figure for figure in PAPER.figures}
    assert list(figures) == ["fig1", "fig2", "fig3", "fig4"]
    for name in ("fig2", "fig3", "fig4"):
        assert figures[name]["events"]
        assert set(figures[name]["check"].split(", ")) <= set(IDS)


def test_where_ours_differs_from_the_paper_is_said():
    assert differences(PAPER, {**PAPER.setting, "panel": [1]}) == ""
    ours = {**PAPER.setting, "height": 64, "locals": ["synth_a"]}
    assert (
        differences(PAPER, ours)
        == "locals synth_a instead of market and duke, height 64 instead of 384"
    )
