import pytest

from stages.gan_transform.claims import CLAIMS, PRINTED, attack_of, metric_of, table1_says
from stages.gan_transform.score import read_paper
from stages.gan_transform.table1 import REFERENCE, differences, tolerated

PAPER = read_paper()
VALUES = {(c.axes["scheme"], c.axes["column"]): c.paper for c in PAPER.cells}


def test_table_1_has_five_rows_of_four_columns_and_fifteen_numbers():
    schemes = ("proposed", "pe_same", "pe_diff", "tanaka", "plain")
    assert set(VALUES) == {(s, c) for s in schemes for c in ("uwa", "ga", "c10", "c100")}
    assert {c.id for c in PAPER.cells} == {f"t1.{s}.{c}" for s, c in VALUES}
    metrics = {"uwa": "ssim", "ga": "ssim", "c10": "acc", "c100": "acc"}
    assert all(c.metric == metrics[c.axes["column"]] for c in PAPER.cells)
    empty = {cell for cell, value in VALUES.items() if value is None}
    assert empty == {("plain", "ga"), *((s, "uwa") for s in ("proposed", "tanaka", "plain"))}


def test_constants_that_repeat_table_1_are_table_1s():
    of_the_paper = {
        cell for cell, value in VALUES.items() if value is not None and cell[1] in ("uwa", "ga")
    }
    assert set(PRINTED) == of_the_paper - {("proposed", "ga")}
    numbers = PAPER.claims["X2"].numbers
    assert numbers == {s: VALUES[s, "ga"] for s in ("pe_same", "tanaka")}


def test_the_papers_words_on_differences_are_its_numbers():
    def lost(column: str, scheme: str, than: str) -> float:
        return round(VALUES[scheme, column] - VALUES[than, column], 2)

    c5 = [lost(c, "proposed", s) for c in ("c10", "c100") for s in ("pe_same", "pe_diff")]
    assert c5 == [-0.56, -0.41, 0.19, 0.08]
    assert [lost(c, "plain", "proposed") for c in ("c10", "c100")] == [4.32, 9.88]


def test_the_generator_is_the_papers_for_each_scheme():
    assert {s: attack_of(s, "ga") for s, _ in VALUES} == {
        "plain": "ga_shared",
        "tanaka": "ga_blockwise",
        "pe_same": "ga_shared",
        "pe_diff": "ga_shared",
        "proposed": "ga_unet",
    }
    assert attack_of("proposed_sum", "ga") == "ga_unet"
    assert metric_of("tanaka", "uwa") == "ssim_uwa_literal"
    assert metric_of("pe_diff", "c100") == "acc_transfer_server"
    assert metric_of("proposed", "c10") == "acc_ten_client"


def test_every_claim_has_a_test_and_every_test_a_claim():
    assert list(PAPER.claims) == list(CLAIMS)
    assert list(PAPER.claims) == [
        *("C1", "C2", "C2b", *(f"C{i}" for i in range(3, 14)), "X1", "X2")
    ]
    assert [f["id"] for f in PAPER.figures] == [f"f{i}" for i in range(1, 8)]


def test_table_1_itself_contradicts_c2_and_satisfies_the_others_that_it_can_tell():
    true = {"C1", "C3", "C4", "C5", "C6", "C7", "C10"}
    assert table1_says(PAPER) == {
        id: True if id in true else False if id == "C2" else None for id in PAPER.claims
    }


@pytest.mark.parametrize("metric", ["ssim", "acc"])
def test_the_reference_row_has_a_value_in_every_column_of_its_metric(metric):
    columns = {c.axes["column"] for c in PAPER.cells if c.metric == metric}
    assert all(VALUES[REFERENCE[metric], column] is not None for column in columns)


def test_values_are_comparable_only_in_the_papers_setting():
    assert differences(PAPER, {**PAPER.setting, "panel": [1]}) == ""
    other = {**PAPER.setting, "attack_size": 32}
    assert differences(PAPER, other) == "attack size 32 instead of 96"


def test_the_tolerance_is_absolute():
    assert tolerated("ssim", PAPER.tolerance) == pytest.approx(0.02)
    assert tolerated("acc", PAPER.tolerance) == pytest.approx(2)
