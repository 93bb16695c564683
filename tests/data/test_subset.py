import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.common.errors import InputError
from stages.data.images import load_images
from stages.data.subset import per_class_subset


@given(labels=st.lists(st.integers(0, 4)), count=st.integers(1, 5))
def test_every_class_has_its_count_or_all_it_has(labels, count):
    chosen = [labels[i] for i in per_class_subset(labels, count)]
    assert all(chosen.count(k) == min(count, labels.count(k)) for k in set(labels))


def test_the_choice_is_pinned_and_nested():
    assert per_class_subset([0] * 8, 3).tolist() == [0, 3, 4]
    assert set(per_class_subset([0] * 8, 2)) < set(per_class_subset([0] * 8, 3))


def test_load_images_takes_some_images_of_each_class():
    whole = load_images("emoji10", "test", 32)
    some = load_images("emoji10", "test", 32, per_class=3)
    chosen = per_class_subset(whole.labels.tolist(), 3)
    assert len(some.images) == 30
    assert (some.images == whole.images[chosen]).all()
    assert (some.labels == whole.labels[chosen]).all()


def test_no_image_a_class_is_refused():
    with pytest.raises(InputError, match="per_class 0"):
        load_images("emoji10", "test", 32, per_class=0)
