"""Tables in Markdown."""

from __future__ import annotations

import doctest

import pytest

from datasets_script.utils import markdown
from datasets_script.utils.markdown import markdown_table


def test_examples_of_the_docstring():
    result = doctest.testmod(markdown)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("aligned", [False, True])
def test_every_line_has_as_many_cells(aligned):
    table = markdown_table(["a", "bb"], [[1, "x|y"], ["two\nlines", None]], aligned)
    lines = table.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.replace("\\|", "").count("|") == 3
    assert "two lines" in lines[3] and "None" in lines[3]
    assert (len({len(line) for line in lines}) == 1) == aligned


@pytest.mark.parametrize("aligned", [False, True])
def test_a_table_may_have_no_row(aligned):
    assert len(markdown_table(["a"], [], aligned).splitlines()) == 2
