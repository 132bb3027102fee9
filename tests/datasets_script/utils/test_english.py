"""Plurals, possessives and numbers of English sentences."""

from __future__ import annotations

import pytest

from datasets_script.utils.english import capitalized, is_plural, plural, possessive, spelled_out


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("coin", "coins"),
        ("person", "people"),
        ("wine glass", "wine glasses"),
        ("bus", "buses"),
        ("lens", "lenses"),
        ("teddy bear", "teddy bears"),
        ("berry", "berries"),
        ("toy", "toys"),
        ("iris", "irises"),
        ("knife", "knives"),
        ("bench", "benches"),
    ],
)
def test_plurals(one, many):
    assert plural(one) == many
    assert not is_plural(one) and is_plural(many)
    assert plural(many) == many


@pytest.mark.parametrize(
    ("noun", "form"),
    [("cat", "cat's"), ("scissors", "scissors'"), ("bus", "bus's"), ("people", "people's"), ("lens", "lens's")],
)
def test_possessives(noun, form):
    assert possessive(noun) == form


def test_counts_are_words_below_ten():
    assert [spelled_out(number) for number in (0, 2, 9, 10)] == ["no", "two", "nine", "10"]


def test_the_first_letter_alone_is_raised():
    assert capitalized("a TV is on") == "A TV is on" and capitalized("") == ""
