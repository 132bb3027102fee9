"""HTML pages of one file: the look they share, and images within them."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

from .style import BLUE, INK, ORANGE, RULE, as_hex


_STYLE = f"""
body {{ margin: 0 auto; padding: 28px; max-width: 1064px; color: {as_hex(INK)}; background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }}
h1 {{ font-size: 26px; margin: 0; }} h2 {{ font-size: 20px; margin: 36px 0 8px; }}
.faint {{ color: #63636b; font-size: 14px; }} .blue {{ color: {as_hex(BLUE)}; }} .orange {{ color: {as_hex(ORANGE)}; }}
.note {{ border-left: 5px solid {as_hex(RULE)}; padding: 4px 12px; margin: 8px 0; }}
.warning {{ border-color: {as_hex(ORANGE)}; background: #fdf4ee; }}
section, .section {{ border-top: 1px solid {as_hex(RULE)}; padding: 16px 0; }}
figure {{ margin: 0; }} img {{ max-width: 100%; height: auto; }} figure img {{ display: block; }}
table {{ border-collapse: collapse; font-size: 14px; margin: 8px 0; }}
th, td {{ text-align: left; padding: 3px 20px 3px 0; border-bottom: 1px solid {as_hex(RULE)}; }}
td.n {{ text-align: right; }}
pre {{ overflow-x: auto; font-size: 13px; background: #f6f6f8; padding: 12px; border-radius: 6px; }}
summary {{ cursor: pointer; }}
"""


def html_page(title: str, body: str, style: str = "") -> str:
    """
    Write a page of one file.

    Args:
        title (`str`): Plain text.
        body (`str`): HTML.
        style (`str`, *optional*, defaults to `""`): CSS of this page alone, after the shared one, which has the
            classes `faint`, `blue`, `orange`, `note`, `warning` and `section`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def embedded_image(image: Image.Image, description: str, kind: str, width: int, height: int) -> str:
    """
    Write an image as an element that holds its file.

    Args:
        image (`PIL.Image.Image`): As it is, but for `"JPEG"` as RGB.
        description (`str`): For those who cannot see it, plain text.
        kind (`str`): `"PNG"` or `"JPEG"`.
        width, height (`int`): Shown size, px.
    """
    buffer = io.BytesIO()
    picture = image if kind == "PNG" else image.convert("RGB")
    picture.save(buffer, format=kind, quality=88, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/{kind.lower()};base64,{data}" alt="{escape(description)}" width="{width}" '
        f'height="{height}">'
    )
