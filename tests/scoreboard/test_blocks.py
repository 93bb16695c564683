"""What stands between two marks."""

import pytest

from stages.common.errors import InputError
from stages.scoreboard.blocks import filled

PAGE = "above\n<!-- a:begin -->\nold\n<!-- a:end -->\nbelow\n<!-- b:begin -->\n<!-- b:end -->\n"


def test_only_what_stands_between_the_marks_of_the_name_changes():
    page = filled(PAGE, "a", "new\nlines\n", "page.md")
    assert page == PAGE.replace("old", "new\nlines")
    assert filled(page, "a", "new\nlines", "page.md") == page
    assert filled(page, "b", "x", "page.md") == page.replace("b:begin -->\n", "b:begin -->\nx\n")


@pytest.mark.parametrize("mark", ["<!-- a:begin -->\n", "<!-- a:end -->\n"])
def test_a_page_without_a_mark_is_refused(mark):
    with pytest.raises(InputError, match=r"page\.md: has no place for a: .*a:begin.*a:end"):
        filled(PAGE.replace(mark, ""), "a", "new", "page.md")


def test_marks_in_the_other_order_are_refused():
    with pytest.raises(InputError, match="in this order"):
        filled("<!-- a:end -->\n<!-- a:begin -->\n", "a", "new", "page.md")
