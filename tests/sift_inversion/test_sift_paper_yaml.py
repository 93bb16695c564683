from stages.sift_inversion.claims import CLAIMS
from stages.sift_inversion.score import read_paper
from stages.sift_inversion.summaries import PAIRS, RUNS, differences

PAPER = read_paper()
IDS = ["C1", "C2", "C3", "C3b", *(f"C{i}" for i in range(4, 13))]


def test_the_paper_prints_no_number():
    assert PAPER.cells == ()
    assert all(figure["values"] == "none printed" for figure in PAPER.figures)


def test_all_eight_figures_are_there_and_say_what_they_compare():
    figures = {figure["id"]: figure for figure in PAPER.figures}
    assert list(figures) == [f"fig{i}" for i in range(1, 9)]
    diagrams = {"fig2", "fig3"}
    for name in set(figures) - diagrams:
        assert figures[name]["events"]
        shown = set(figures[name]["variants"]) - {"original", "keypoints"}
        assert shown <= set(RUNS)
        assert set(figures[name]["check"].split(", ")) <= set(IDS)


def test_every_claim_has_a_test_and_every_test_a_claim():
    assert list(PAPER.claims) == list(CLAIMS) == IDS


def test_least_effects_are_those_of_the_specification():
    deltas = {id: claim.delta for id, claim in PAPER.claims.items() if claim.delta is not None}
    per_cent = {"C1": 10, "C2": 5, "C3": 3, "C4": 5, "C6": 5, "C8": 5, "C9": 10, "C10": 3}
    assert deltas == per_cent
    numbers = {id: claim.numbers for id, claim in PAPER.claims.items() if claim.numbers}
    assert numbers == {
        "C5": {"box": 0.1, "id1": 0.5, "outside": 10},
        "C7": {"p": 0.01},
        "C10": {"images": 8000},
        "C12": {"times": 20, "box": 0.1},
    }


def test_where_ours_differs_from_the_paper_is_said():
    assert differences(PAPER, {**PAPER.setting, "panel": [1]}) == ""
    ours = {**PAPER.setting, "size": 64, "faces": "emoji"}
    assert differences(PAPER, ours) == "faces emoji instead of celeba, size 64 instead of 256"
    assert differences(PAPER, {}).startswith("faces None instead of celeba")


def test_compared_runs_are_runs():
    pairs = [pair for _, pairs in PAIRS.values() for pair in pairs]
    assert {run for first, second, _ in pairs for run in (first, second)} <= set(RUNS)
    assert len({(first, second) for first, second, _ in pairs}) == len(pairs)
