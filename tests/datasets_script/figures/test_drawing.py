"""Drawing primitives, and pages with embedded images."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image, ImageDraw

from datasets_script.figures.charts import BLUE as BLUE_OF_CHARTS
from datasets_script.figures.charts import COLOR_OF_TYPE
from datasets_script.figures.drawing import draw_legend, fitted, in_rows, with_mask, wrapped
from datasets_script.figures.lettering import lettered
from datasets_script.figures.page import embedded_image, html_page
from datasets_script.figures.style import BLUE, MARGIN, ORANGE, TEXT_FONT, TITLE_FONT, TYPE_COLORS, as_hex


GREY = (200, 200, 200)


def grey(width: int = 40, height: int = 30) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


@pytest.mark.parametrize(("outline", "halo"), [(1, False), (3, True)])
def test_a_mask_is_tinted_within_its_outline(outline, halo):
    mask = np.zeros((30, 40), dtype=bool)
    mask[10:20, 5:25] = True
    pixels = np.asarray(with_mask(grey(), mask, BLUE, 0.5, outline, halo))
    inner = np.zeros_like(mask)
    inner[10 + outline : 20 - outline, 5 + outline : 25 - outline] = True
    assert (pixels[inner] == (100, 157, 189)).all()
    assert (pixels[mask & ~inner] == BLUE).all()
    around = np.zeros_like(mask)
    around[9:21, 4:26] = True
    assert (pixels[around & ~mask] == (255 if halo else 200)).all()
    assert (pixels[~around] == 200).all()


def test_a_mask_of_another_size_is_brought_to_the_image_and_may_fill_it():
    pixels = np.asarray(with_mask(grey(), np.ones((3, 4), dtype=bool), ORANGE, 0.5, outline=2))
    assert (pixels[0] == ORANGE).all() and (pixels[:, 1] == ORANGE).all()
    assert (pixels[2:-2, 2:-2] == (206, 147, 100)).all()


@pytest.mark.parametrize("font", [TEXT_FONT, TITLE_FONT])
@pytest.mark.parametrize("text", ["word " * 40, "多了一只耳朵" * 20, "a" * 300 + " b", ""])
def test_lines_fit_and_hold_the_whole_text(text, font):
    lines = wrapped(text, 200, font)
    shown, font = lettered(text, font)
    assert all(font.getlength(line) <= 200 for line in lines)
    assert "".join("".join(lines).split()) == "".join(shown.split())


def test_blocks_stand_in_rows_with_margins_around():
    blocks = [Image.new("RGB", (50, height), "black") for height in (20, 40, 30)]
    sheet = in_rows(blocks, columns=2, top=60, gap=10)
    assert sheet.size == (2 * 50 + 10 + 2 * MARGIN, 60 + 40 + 10 + 30 + MARGIN)
    dark = np.asarray(sheet).max(axis=-1) == 0
    assert dark.sum() == 50 * 90 and dark[110:140, MARGIN : MARGIN + 50].all()
    assert in_rows(blocks[:1], 2, 60, 10, least_width=300).width == 300 + 2 * MARGIN


def test_a_legend_shows_each_colour():
    sheet = Image.new("RGB", (600, 60), "white")
    draw_legend(ImageDraw.Draw(sheet), [(color, kind) for kind, color in TYPE_COLORS.items()], 20)
    pixels = np.asarray(sheet)
    assert all((pixels == color).all(axis=-1).any() for color in TYPE_COLORS.values())


def test_the_long_side_is_fitted_and_none_vanishes():
    assert fitted(grey(40, 30), 80).size == (80, 60)
    assert fitted(grey(1, 1000), 10).size == (1, 10)


def test_charts_and_sheets_have_the_same_colours():
    assert BLUE_OF_CHARTS == as_hex(BLUE) == "#0072b2"
    assert COLOR_OF_TYPE == {kind: as_hex(color) for kind, color in TYPE_COLORS.items()}


def test_a_page_is_one_file_with_its_images():
    element = embedded_image(grey(), 'a "b" <c>', "PNG", 20, 15)
    page = html_page("x < y", element, ".own { color: red; }")
    assert "<title>x &lt; y</title>" in page and ".own { color: red; }" in page and "{{" not in page
    assert 'alt="a &quot;b&quot; &lt;c&gt;" width="20" height="15"' in page
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 30)
    transparent = Image.new("RGBA", (4, 4))
    assert "data:image/jpeg;base64," in embedded_image(transparent, "", "JPEG", 4, 4)
