"""t12: colour columns become two tasks, and identities without exactly one of each are left out."""

import numpy as np
import pytest

from stages.common.errors import InputError
from stages.deep_features.labels import label, merge_colours, of_images

BLACK = {"upblack": "2", "upred": "1", "downblue": "1", "downwhite": "2"}
TWO = BLACK | {"upred": "2"}
NONE = BLACK | {"downwhite": "1"}


def test_one_colour_of_each_group_becomes_two_tasks():
    merged = merge_colours({"up": "long", "down": "short", "hat": "no"} | BLACK)
    assert merged == {
        "up": "long", "down": "short", "hat": "no", "up_colour": "black", "down_colour": "white",
    }  # fmt: skip


@pytest.mark.parametrize("row", [TWO, NONE, BLACK | {"upblack": "1"}])
def test_no_or_two_colours_are_no_row(row):
    assert merge_colours(row) is None


def test_yes_is_a_word_or_two():
    words = {"upblack": "yes", "upred": "no", "downblue": "yes", "downwhite": "no"}
    assert merge_colours(words) == {"up_colour": "black", "down_colour": "blue"}


def test_a_group_without_columns_is_no_task():
    assert merge_colours({"hat": "yes", "upred": "2"}) == {"hat": "yes", "up_colour": "red"}


def test_kept_rows_classes_and_reasons_of_a_toy_table():
    red = BLACK | {"upblack": "1", "upred": "2"}
    blue = BLACK | {"downblue": "2", "downwhite": "1"}
    train = {
        1: {"hat": "no"} | BLACK,
        2: {"hat": "yes"} | blue,
        3: {"hat": "yes"} | TWO,
        4: {"hat": "yes"} | red,
        5: {"hat": ""} | red,
    }
    test = {7: {"hat": "yes"} | red, 8: {"hat": "no"} | NONE, 9: {"hat": "maybe"} | red}
    found = label(train, test)
    assert found.tasks == [
        {"name": "hat", "classes": ["no", "yes"]},
        {"name": "down_colour", "classes": ["blue", "white"]},
        {"name": "up_colour", "classes": ["black", "red"]},
    ]
    assert {k: v.tolist() for k, v in found.classes["train"].items()} == {
        1: [0, 1, 0],
        2: [1, 0, 0],
        4: [1, 1, 1],
    }
    assert {k: v.tolist() for k, v in found.classes["test"].items()} == {7: [1, 1, 1]}
    assert found.dropped == {
        "train": {3: "colour_rule", 5: "no_annotation"},
        "test": {8: "colour_rule", 9: "unseen_class"},
    }
    assert found.constant == []


def test_a_task_of_one_class_is_left_out_and_named():
    rows = {1: {"hat": "no", "bag": "no"}, 2: {"hat": "no", "bag": "yes"}}
    found = label(rows, {3: rows[1]})
    assert [task["name"] for task in found.tasks] == ["bag"] and found.constant == ["hat"]


def test_images_get_their_identitys_classes_and_others_minus_one():
    classes = {4: np.array([1, 0]), 9: np.array([2, 1])}
    found = of_images(np.array([9, 0, 4, 9, 5]), classes)
    assert found.tolist() == [[2, 1], [-1, -1], [1, 0], [2, 1], [-1, -1]]
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        ({1: {"hat": "no"}, 2: {"bag": "no"}}, {}, "bag, hat for some only"),
        ({1: NONE, 2: TWO}, {3: BLACK}, "none of 2 in train"),
        ({1: BLACK}, {}, "none of 0 in test"),
        ({1: BLACK, 2: BLACK}, {3: BLACK}, "one class in each of down_colour, up_colour"),
        ({1: {"hat": "no"}, 2: {"hat": "yes"}}, {3: {"hat": "?"}}, "classes are in training"),
    ],
)
def test_impossible_attributes_are_one_sentence(train, test, sentence):
    with pytest.raises(InputError, match=f"cannot be made into classes.*{sentence}"):
        label(train, test)
