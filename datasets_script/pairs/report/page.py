"""HTML page of a report: one file with all images embedded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from ...figures.charts import SHARPNESS
from ...figures.page import embedded_image, html_page
from ...figures.sheets import draw_artifacts
from ...figures.style import RULE, TYPE_COLORS, as_hex
from ...schema.pair import Pair
from .charts import Chart
from .findings import Finding
from .statistics import Statistics


_TILE = 336
_REASONS_SHOWN = 20

_STYLE = f"""
.facts {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 0; padding: 0; list-style: none; }}
.facts li {{ flex: 1; min-width: 120px; border: 1px solid {as_hex(RULE)}; border-radius: 6px; padding: 8px 12px; }}
.facts b {{ display: block; font-size: 22px; line-height: 1.3; }}
.findings {{ padding: 0; list-style: none; }}
.charts {{ display: flex; flex-wrap: wrap; gap: 24px; align-items: flex-start; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: 8px; }}
.artifact {{ margin: 6px 0; }}
.artifact span {{ display: inline-block; width: 13px; height: 13px; border-radius: 3px; }}
"""


def make_page(
    content: Mapping[str, Any],
    findings: Sequence[Finding],
    statistics: Statistics,
    charts: Sequence[Chart],
    samples: Sequence[Pair],
) -> str:
    """
    Compose the HTML page of a report.

    Args:
        content (`Mapping`): Content of `report.json`.
        findings (`Sequence[Finding]`): Findings, in the order to show.
        statistics (`Statistics`): Statistics of the dataset.
        charts (`Sequence[Chart]`): Charts, in the order to show.
        samples (`Sequence[Pair]`): Pairs to show.

    Returns:
        `str`: The HTML document.
    """
    run, settings = content["run"], content["run"]["settings"]
    name = escape(content["data_set"])
    made = f"model {settings['model']} · perception {run['perception'].get('backend', '')} · seed {settings['seed']}"
    sections = [
        f"<h1>What is in {name}</h1>",
        f'<p class="faint">{escape(made)} · report of {content["made"]}</p>',
        _facts(statistics),
        "<h2>Before training</h2>",
        '<p class="faint">Findings of simple rules; those highlighted are biases that a model can learn.</p>',
        _list(findings),
        "<h2>Numbers</h2>",
        f'<div class="charts">{"".join(_chart(chart) for chart in charts)}</div>',
        "<h2>Labels</h2>",
        '<p class="faint">How boxes and masks agree with what visibly changed, in a sample of up to 200 pairs.</p>',
        _labels(statistics),
        "<h2>Sample pairs</h2>",
        '<p class="faint">Drawn at random, up to two with each type of artifact.</p>',
        *(_pair(pair) for pair in samples),
        "<h2>Rejections</h2>",
        _rejections(statistics),
        "<h2>Settings and versions</h2>",
        f"<details><summary>As recorded by the run</summary><pre>{_json(run)}</pre></details>",
        f'<p class="faint">Distributions are over up to {content["report"]["sample_size"]:,} pairs, drawn with seed '
        f"{content['report']['seed']}; counts cover all pairs. The same numbers are in report.json.</p>",
    ]
    return html_page(f"What is in {content['data_set']}", "\n".join(sections), _STYLE)


def _facts(statistics: Statistics) -> str:
    shares = statistics.as_dict()["box_share"]["all"]
    facts = {
        "pairs": f"{statistics.pairs:,}",
        "photos": f"{statistics.photos:,}",
        "artifacts": f"{statistics.artifacts:,}",
        "artifacts per image": f"{statistics.artifacts / statistics.pairs:.1f}",
        "of the image covered by the median box": f"{shares['q50']:.1%}",
        "IoU of the best constant box": f"{statistics.constant_box.mean_iou:.3f}",
    }
    items = "".join(f"<li><b>{value}</b>{label}</li>" for label, value in facts.items())
    return f'<ul class="facts">{items}</ul>'


def _list(findings: Sequence[Finding]) -> str:
    kinds = {True: "note warning", False: "note"}
    items = (f'<li class="{kinds[finding.is_bias]}">{escape(finding.text)}</li>' for finding in findings)
    return f'<ul class="findings">{"".join(items)}</ul>'


def _chart(chart: Chart) -> str:
    width, height = (side // SHARPNESS for side in chart.image.size)
    # Charts have few colours, so a palette makes the file smaller without a visible difference.
    quantized = chart.image.quantize(256, dither=Image.Dither.NONE)
    return embedded_image(quantized, chart.description, "PNG", width, height)


def _pair(pair: Pair) -> str:
    factor = _TILE / max(pair.flawed.size)
    size = (max(1, round(pair.flawed.width * factor)), max(1, round(pair.flawed.height * factor)))
    images = {
        "clean image": pair.clean.resize(size, Image.Resampling.LANCZOS),
        "artifact image": pair.flawed.resize(size, Image.Resampling.LANCZOS),
        "artifacts": draw_artifacts(pair.flawed, pair.artifacts, size),
    }
    tiles = "".join(
        f"<figure>{embedded_image(image, f'{pair.pair_id}: {title}', 'JPEG', *size)}"
        f'<figcaption class="faint">{title}</figcaption></figure>'
        for title, image in images.items()
    )
    artifacts = "".join(
        f'<p class="artifact"><span style="background:{as_hex(TYPE_COLORS[artifact.type])}"></span> '
        f"<b>{escape(artifact.type)}</b>, {escape(artifact.label)}: {escape(artifact.explanation)}</p>"
        for artifact in pair.artifacts
    )
    name = f'<p class="faint">{escape(pair.pair_id)}</p>'
    return f'<div class="section"><div class="tiles">{tiles}</div>{artifacts}{name}</div>'


def _labels(statistics: Statistics) -> str:
    rows = [
        (kind, f"{of['box_iou']['n']}", f"{of['box_iou']['q50']:.2f}", f"{of['mask_iou']['q50']:.2f}")
        for kind, of in statistics.as_dict()["labels"].items()
    ]
    return _table(("type", "artifacts", "median IoU of boxes", "median IoU of masks"), rows)


def _rejections(statistics: Statistics) -> str:
    total = statistics.rejections.total()
    if not total:
        return "<p>Nothing was rejected.</p>"
    most = statistics.rejections.most_common(_REASONS_SHOWN)
    rows = [(stage, reason, f"{count:,}") for (stage, _, reason), count in ((r.partition(": "), n) for r, n in most)]
    rest = total - sum(count for _, count in most)
    note = f'<p class="faint">and {rest:,} for rarer reasons</p>' if rest else ""
    return (
        f"<p>{total:,} rejections on record: artifacts that curation rejected, tools that found no place, and "
        f"photos that could not be used.</p>{_table(('stage', 'reason', 'times'), rows)}{note}"
    )


def _table(heading: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """Compose a table whose last column holds numbers."""
    head = "".join(f"<th>{cell}</th>" for cell in heading)
    body = "".join(
        f'<tr>{"".join(f"<td>{escape(cell)}</td>" for cell in row[:-1])}<td class="n">{row[-1]}</td></tr>'
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _json(content: Any) -> str:
    return escape(json.dumps(content, indent=1, ensure_ascii=False))
