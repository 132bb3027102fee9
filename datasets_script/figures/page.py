"""Self-contained HTML pages: shared style and embedded images."""

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
    Compose a self-contained HTML page.

    Args:
        title (`str`): Title of the page, plain text.
        body (`str`): Content of the page, HTML.
        style (`str`, *optional*, defaults to `""`): CSS of this page alone. It follows the shared CSS, which defines
            the classes `faint`, `blue`, `orange`, `note`, `warning` and `section`.

    Returns:
        `str`: The HTML document.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def embedded_image(image: Image.Image, description: str, kind: str, width: int, height: int) -> str:
    """
    Compose an `<img>` element that embeds an image as a data URL.

    Args:
        image (`PIL.Image.Image`): The image; converted to RGB for `"JPEG"`.
        description (`str`): Alternative text, plain text.
        kind (`str`): Format, `"PNG"` or `"JPEG"`.
        width (`int`): Width on the page, px.
        height (`int`): Height on the page, px.

    Returns:
        `str`: The HTML element.
    """
    buffer = io.BytesIO()
    stored = image if kind == "PNG" else image.convert("RGB")
    stored.save(buffer, format=kind, quality=88, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/{kind.lower()};base64,{data}" alt="{escape(description)}" width="{width}" '
        f'height="{height}">'
    )
