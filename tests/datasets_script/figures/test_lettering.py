"""Names and explanations in any script are drawn as letters, not as boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from datasets_script.figures import lettering
from datasets_script.figures.drawing import wrapped
from datasets_script.figures.lettering import draw_text, lettered
from datasets_script.figures.style import TEXT_FONT


def drawn(text: str) -> np.ndarray:
    image = Image.new("L", (400, 40), "white")
    draw_text(ImageDraw.Draw(image), (0, 0), text, "black", TEXT_FONT)
    return np.asarray(image)


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(lettering, "_FALLBACKS", ())


def test_a_font_that_has_the_letters_is_taken_where_one_is_installed(monkeypatch, tmp_path):
    from matplotlib import font_manager

    font = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    monkeypatch.setattr(lettering, "_FALLBACKS", (str(tmp_path / "missing.ttf"), font))
    text, chosen = lettered("рука", TEXT_FONT)
    assert text == "рука" and isinstance(chosen, ImageFont.FreeTypeFont)
    assert isinstance(TEXT_FONT, ImageFont.FreeTypeFont) and (chosen.size, chosen.path) == (TEXT_FONT.size, font)
    assert lettered("The hand.", TEXT_FONT) == ("The hand.", TEXT_FONT)


def test_without_one_letters_are_written_in_ascii_and_a_warning_says_so(nothing_installed, caplog):
    lettering._warn.cache_clear()
    assert lettered("手 ok", TEXT_FONT)[0] == "\\u624b ok"
    assert "no installed font has '手' (U+624B)" in caplog.text
    missing = [letter for letter in "éǎȍ" if lettering._missing(letter, TEXT_FONT)]
    assert all(lettered(letter, TEXT_FONT)[0] in "eao" for letter in missing)


def test_what_is_drawn_differs_by_letter_and_is_wrapped_as_drawn(nothing_installed):
    assert (drawn("手") != drawn("足")).any() and (drawn("手") == drawn("\\u624b")).all()
    lines = wrapped("手足" * 40, 200)
    assert len(lines) > 1 and all(TEXT_FONT.getlength(line) <= 200 for line in lines)
