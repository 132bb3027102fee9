"""DiffDoctor's scores of artifact maps: MSE, KL, KL(1-) and artifact frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate

from evaluate_metrics.functional.artifact_map import artifact_frequency, artifact_map  # From: artiagent
from evaluate_metrics.functional.descriptions import inputs_description  # From: artiagent
from evaluate_metrics.functional.intervals import Bootstrap  # From: artiagent
from evaluate_metrics.functional.regions import undecoded  # From: artiagent


_DESCRIPTION = """
Scores of predicted artifact maps against true maps, as DiffDoctor defines them (MSE, KL(P||Q), KL(1-P||1-Q) per
pixel), and the artifact frequency: the share of images whose predicted map exceeds a threshold anywhere.
"""

_CITATION = """\
@inproceedings{wang2025diffdoctor,
  title={{DiffDoctor}: Diagnosing Image Diffusion Models Before Treating},
  author={Wang, Yiyang and Chen, Xi and Xu, Xiaogang and Ji, Sihui and Liu, Yu and Shen, Yujun and Zhao, Hengshuang},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year={2025},
}"""

_FORMS = {
    "predictions": """predictions (`list`): Predicted map of each image in [0, 1]: an array of shape
        `(height, width)`, a greyscale image, or its path or bytes. Integers are divided by the greatest value of their
        type; only 0 and 1 raise an error, since they may be a mask or a faint map.""",
    "references": """references (`list`): True map of each image, of the size of its prediction. Not given with the
        configuration "frequency", whose result has only `artifact_frequency`.""",
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
            raise ValueError(f"`config_name` must be one of {', '.join(columns)}, got {self.config_name!r}")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # Not decoded, so that only one image at a time is in memory.
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
            return artifact_frequency(undecoded(predictions), threshold, bootstrap)
        return artifact_map(undecoded(predictions), undecoded(references), threshold, epsilon, bootstrap)
