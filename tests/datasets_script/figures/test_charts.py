"""Names beside the rows of charts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageFont

from datasets_script.figures import charts, lettering
from datasets_script.figures.cases import type_bars
from datasets_script.figures.charts import name_rows, new_figure, to_image
from datasets_script.pairs.report.charts import _names


def labels(names: list[str], **options: Any) -> list[str]:
    axes = new_figure(400, 200).subplots()
    name_rows(axes, names, **options)
    return [label.get_text() for label in axes.get_yticklabels()]


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and bool((np.asarray(first) == np.asarray(second)).all())


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(lettering, "_FALLBACKS", ())
    lettering._warn.cache_clear()


def test_names_are_shortened_and_notes_are_not():
    assert labels(["a" * 40, "hand"], length=10, notes=["  (n = 12)", ""]) == ["a" * 9 + "…  (n = 12)", "hand"]


def test_accents_are_drawn_as_they_are():
    names = ["oreille gauche abîmée", "pâte", "Ohr, größer", "рука"]
    assert labels(names) == names


def test_without_a_font_names_are_written_in_ascii_and_a_warning_says_so(nothing_installed, caplog):
    assert labels(["手", "a手" * 20], length=12) == ["\\u624b", "a\\u624ba\\u6…"]
    assert "no installed font has '手' (U+624B)" in caplog.text
    by_type = {"手": 0.5, "足": 0.25}
    drawn = type_bars(by_type, dict.fromkeys(by_type), {})
    written = type_bars({"\\u624b": 0.5, "\\u8db3": 0.25}, dict.fromkeys(["\\u624b", "\\u8db3"]), {})
    assert same(drawn, written)
    counts = {"手": Counter(fusion=2), "hand": Counter(fusion=1)}
    assert same(
        _names(counts, "part", 3).image, _names({"\\u624b": counts["手"], "hand": counts["hand"]}, "part", 3).image
    )


def test_an_installed_font_that_has_the_letters_is_taken(monkeypatch):
    """A font without Cyrillic letters stands for the usual one, as that of matplotlib has them."""
    other = font_manager.findfont("DejaVu Serif", fallback_to_default=False)
    monkeypatch.setattr(charts, "_usual_font", lambda: ImageFont.load_default(size=13))
    monkeypatch.setattr(lettering, "_FALLBACKS", (other,))
    figure = new_figure(400, 200)
    axes = figure.subplots()
    name_rows(axes, ["рука", "hand"])
    to_image(figure)
    taken, usual = axes.get_yticklabels()
    assert taken.get_text() == "рука" and taken.get_fontproperties().get_file() == other
    assert taken.get_fontsize() == usual.get_fontsize() and usual.get_fontproperties().get_file() is None
