"""mIoU, F1, precision and recall of artifact pixels under a chosen protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import datasets
import evaluate
from datasets import List, Value

from evaluate_metrics.functional.citations import ARTIAGENT  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent
from evaluate_metrics.functional.miou import miou  # From: artiagent
from evaluate_metrics.functional.regions import undecoded  # From: artiagent


_DESCRIPTION = """
Overlap of predicted and true artifact regions in pixels. The papers on artifacts call four different quantities
"mIoU". `protocol` selects one: IoU per image over images with artifacts ("artiagent"), mean of artifact and background
IoU ("legion"), IoU per image over all images ("menn"), or IoU of the whole dataset ("x_aigd").
"""

_CITATION = ARTIAGENT

_FORMS = {
    "predictions, references": """predictions, references (`list`): Region of each image, in the form of the
        configuration:
        "boxes" (default): list of `(x_min, y_min, x_max, y_max)` in pixels, exclusive maxima; `[]` for none.
        "polygons": list of `(x, y, x, y, ...)` in pixels.
        "rle": list of COCO RLE, `{"size": [height, width], "counts": compressed string}`.
        "masks": greyscale image: path, bytes, PIL image or array; a heat map is cut at `threshold`.""",
    "sizes": """sizes (`list[tuple[int, int]]`): Width and height of each image in pixels; not needed with "masks".""",
}

_EXAMPLES = """
    >>> import evaluate
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("miou"))
    >>> boxes = {"predictions": [[(0, 0, 2, 2)], []], "references": [[(1, 0, 3, 2)], []], "sizes": [(4, 4), (4, 4)]}
    >>> result = metric.compute(**boxes, protocol="artiagent")
    >>> round(result["miou"], 3), result["f1"], result["n_scored"]
    (0.333, 0.5, 1)
    >>> round(metric.compute(**boxes, protocol="legion")["miou"], 3)
    0.6
"""

_KWARGS_DESCRIPTION = inputs_description(miou, _EXAMPLES, _FORMS)

_REGIONS = {
    "boxes": List(List(Value("float64"), length=4)),
    "polygons": List(List(Value("float64"))),
    "rle": List({"size": List(Value("int64"), length=2), "counts": Value("string")}),
    # Not decoded, so that only one image at a time is in memory.
    "masks": datasets.Image(decode=False),
}


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Miou(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        name = "boxes" if self.config_name == "default" else self.config_name
        if name not in _REGIONS:
            raise ValueError(f"`config_name` must be one of {', '.join(_REGIONS)}, got {name!r}")
        sizes = {} if name == "masks" else {"sizes": List(Value("int64"), length=2)}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": _REGIONS[name], "references": _REGIONS[name], **sizes}),
        )

    def _compute(
        self,
        predictions: Iterable[Any],
        references: Iterable[Any],
        sizes: Iterable[tuple[int, int]] | None = None,
        protocol: str = "artiagent",
        threshold: float = 0.5,
        empty: str = "one",
        resize: str | tuple[int, int] = "error",
        average: str | None = None,
        artifact_values: Sequence[int] | None = None,
        ignore_values: Sequence[int] = (),
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        if self.config_name == "masks":
            predictions, references = undecoded(predictions), undecoded(references)
        bootstrap = Bootstrap(n_resamples, confidence, seed)
        return miou(
            predictions,
            references,
            sizes,
            protocol,
            threshold,
            empty,
            resize,
            average,
            bootstrap,
            artifact_values,
            ignore_values,
        )
