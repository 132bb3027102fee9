"""DiffDoctor's scores of artifact maps: MSE, KL, KL(1-) and artifact frequency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.artifact_map import artifact_frequency, artifact_map  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent


_DESCRIPTION = """
How near predicted artifact maps are to true ones (MSE, KL(P||Q), KL(1-P||1-Q) per pixel, as DiffDoctor defines them),
and the artifact frequency: the share of images whose predicted map exceeds 0.5 somewhere.
"""

_CITATION = """\
@inproceedings{wang2025diffdoctor,
  title={{DiffDoctor}: Diagnosing Image Diffusion Models Before Treating},
  author={Wang, Yiyang and Chen, Xi and Xu, Xiaogang and Ji, Sihui and Liu, Yu and Shen, Yujun and Zhao, Hengshuang},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year={2025},
}"""

_FORMS = {
    "predictions": """predictions (`list`): Artifact maps in [0, 1], one an image: arrays of shape `(height, width)`,
        greyscale images, paths or bytes of one. Integers are divided by the greatest value of their type; predictions
        of 0 and 1 alone are refused, as they may be a mask or a faint map.""",
    "references": """references (`list`): The true maps, of the same sizes; not with the configuration "frequency",
        whose result has `artifact_frequency` alone.""",
}

_EXAMPLES = """
    >>> import evaluate
    >>> import numpy as np
    >>> from evaluate_metrics import metric_path
    >>> metric = evaluate.load(metric_path("artifact_map"))
    >>> maps = {"predictions": [np.array([[0.5, 0.0]], "float32")], "references": [np.array([[1.0, 0.0]], "float32")]}
    >>> result = metric.compute(**maps)
    >>> result["mse"], round(result["kl"], 4), result["artifact_frequency"]
    (0.125, 0.3466, 0.0)
    >>> frequency = evaluate.load(metric_path("artifact_map"), "frequency")
    >>> frequency.compute(predictions=[np.array([[0.2, 0.9]], "float32")])["artifact_frequency"]
    1.0
"""

_KWARGS_DESCRIPTION = inputs_description(artifact_map, _EXAMPLES, _FORMS)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ArtifactMap(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        columns = {"default": ("predictions", "references"), "frequency": ("predictions",)}
        if self.config_name not in columns:
            raise ValueError(f"the configuration must be one of {', '.join(columns)}, got {self.config_name!r}")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # Undecoded, so that pixels are in memory for one image at a time.
            features=datasets.Features({name: datasets.Image(decode=False) for name in columns[self.config_name]}),
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]] | None = None,
        threshold: float = 0.5,
        epsilon: float = 1e-6,
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, Any]:
        bootstrap = Bootstrap(n_resamples, confidence, seed)
        if references is None:
            return artifact_frequency(_files(predictions), threshold, bootstrap)
        return artifact_map(_files(predictions), _files(references), threshold, epsilon, bootstrap)


def _files(pictures: Iterable[Any]) -> Iterable[Any]:
    # What is no image is left to the function, which names the image.
    return (picture and (picture["bytes"] or Path(picture["path"]).read_bytes()) for picture in pictures)
