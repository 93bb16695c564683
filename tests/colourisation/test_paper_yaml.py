import numpy as np
import pytest

from stages.colourisation.claims import CLAIMS, TABLE1, spearman, table1_says
from stages.colourisation.score import read_paper
from stages.colourisation.table1 import differences

PAPER = read_paper()


def column(metric: str) -> np.ndarray:
    printed = {c.axes["variant"]: c.paper for c in PAPER.cells if c.metric == metric}
    return np.array([printed[v] for v in TABLE1], np.float64)


def test_table_1_has_six_rows_of_three_numbers_and_the_second_reading_of_one():
    rows = {(c.id, c.axes["variant"]) for c in PAPER.cells}
    assert rows == {*((f"T1.{v}", v) for v in TABLE1), ("T1.in_code", "ln")}
    assert len(PAPER.cells) == 3 * 7
    second = {c.metric: c.paper for c in PAPER.cells if c.id == "T1.in_code"}
    assert second == {c.metric: c.paper for c in PAPER.cells if c.id == "T1.in"}


@pytest.mark.parametrize(
    ("peak", "low", "high"),
    [(1, 0.005, 0.005), (110, 0.51, 0.53), (128, 0.60, 0.62), (255, 1.19, 1.23)],
)
def test_only_a_peak_of_255_gives_an_rmse_above_l1(peak, low, high):
    ratios = peak / 10 ** (column("psnr") / 20) / column("l1")
    assert ratios.min() == pytest.approx(low, abs=0.005)
    assert ratios.max() == pytest.approx(high, abs=0.005)


def test_l1_and_psnr_rank_alike_and_lperc_nearly_opposite():
    assert spearman(column("l1"), column("psnr")) == pytest.approx(-1.00)
    assert spearman(column("l1"), column("lperc")) == pytest.approx(-0.886, abs=5e-4)


def test_rank_correlation_gives_ties_their_mean_rank():
    from scipy.stats import spearmanr

    x, y = np.array([1.0, 2.0, 2.0, 5.0, 0.0]), np.array([3.0, 3.0, 1.0, 2.0, 2.0])
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert spearman(x, np.ones(5)) == 0


def test_changes_against_bn_are_the_known_percentages():
    def change(metric: str, variant: str) -> float:
        values = dict(zip(TABLE1, column(metric), strict=True))
        return round(100 * (values[variant] / values["bn"] - 1), 1)

    rows = ("in", "in_sn", "bn_sn", "bn_sn_md", "ibn_sn_md")
    assert [change("lperc", v) for v in rows] == [-0.3, -5.8, -8.5, -8.6, -9.8]
    assert [change("l1", v) for v in rows] == [0.9, 0.6, 9.5, 17.0, 13.9]


def test_every_claim_has_a_test_and_every_test_a_claim():
    assert list(PAPER.claims) == list(CLAIMS)
    assert [f["id"] for f in PAPER.figures] == ["F1", "F2", "F3", "F4", "F5"]


def test_table_1_itself_satisfies_the_claims_that_it_can_tell():
    says = table1_says(PAPER)
    true = {"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C16"}
    assert says == {id: True if id in true else None for id in PAPER.claims}


def test_values_are_comparable_only_in_the_papers_setting():
    same = {"dataset": "imagenet", "size": 256, "n_test": 10000, "n_val": 3}
    same |= {"perc_backbone": "vgg19_keras", "perc_size": 224, "quant": "trunc8"}
    assert differences(PAPER, same) == ""
    assert differences(PAPER, {**same, "size": 64}) == "size 64 instead of 256"
