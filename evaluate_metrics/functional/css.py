"""Closeness of explanations to their references in meaning: cosine of sentence embeddings (ArtiAgent §8: CSS)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .intervals import Bootstrap, score_with_intervals
from .texts import check_texts
from .versions import versions


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


DEFAULT_MODEL = "sentence-transformers/paraphrase-MiniLM-L6-v2"

# Configuration, vocabulary and weights; never pickles or code.
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """
    A model of sentence embeddings, and what pins its numbers.

    Attributes:
        name (`str`): Its id on the Hub, or the name of its folder.
        revision (`str`): The commit on the Hub, or `sha256:` and a fingerprint of the files of a folder.
        pooling (`str`): How the embeddings of tokens become one: `"mean"`, `"cls"`, ...
        encoder (`SentenceTransformer`): The model.
    """

    name: str
    revision: str
    pooling: str
    encoder: SentenceTransformer

    def embed(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """
        Args:
            texts (`Sequence[str]` of length `texts`): Longer ones are cut at the model's greatest length.
            batch_size (`int`, *optional*, defaults to 32): Texts at a time.

        Returns:
            `np.ndarray` of shape `(texts, channels)`, `float32`.
        """
        return self.encoder.encode(list(texts), batch_size=batch_size, show_progress_bar=False)


def css(
    predictions: Sequence[str | None],
    references: Sequence[str],
    model: str | SentenceModel = DEFAULT_MODEL,
    revision: str | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Mean cosine of the sentence embeddings of each prediction and its reference.

    A prediction that is `None` or blank scores 0, whatever the model makes of an empty text, and is counted in
    `empty_rate`. Nothing stands in for a model that is missing.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): What the model under test wrote; `None` for nothing.
        references (`Sequence[str]` of length `samples`): What it should have written, not blank.
        model (`str` or `SentenceModel`, *optional*, defaults to `"sentence-transformers/paraphrase-MiniLM-L6-v2"`):
            A model of sentence embeddings with safetensors weights: an id on the Hub or a local folder, or what
            [`load_sentence_model`] returned, to load once for several calls; `revision` and `device` are then its own.
        revision (`str`, *optional*): Branch, tag or commit of a model on the Hub; its default branch without it.
        device (`str`, *optional*, defaults to `"cpu"`): Where the model runs. Devices differ in the last digits.
        batch_size (`int`, *optional*, defaults to 32): Texts at a time.
        bootstrap (`Bootstrap`, *optional*): How intervals are made.

    Returns:
        `dict[str, Any]`: `css` in [-1, 1] and `empty_rate` in [0, 1], each with an `_interval`; `model`, `revision`
        and `pooling`, without which the number means nothing; `protocol`, `n` and `versions`.

    Raises:
        ImportError: no `sentence_transformers` package.
        OSError: the model is not there; the message says what to fetch.
        ValueError: lengths that differ, no sample, or a blank reference.
    """
    check_texts(predictions, references)
    if isinstance(model, str):
        model = load_sentence_model(model, revision, device)
    texts = [(prediction or "").strip() for prediction in predictions]
    empty = np.array([not text for text in texts], dtype=bool)
    embeddings = model.embed([*texts, *references], batch_size) if texts else np.zeros((0, 1))
    cosines = np.where(empty, 0.0, cosine_similarity(embeddings[: len(texts)], embeddings[len(texts) :]))
    result = score_with_intervals(
        np.column_stack([cosines, empty]),
        lambda sums: {"css": sums[:, 0] / len(texts), "empty_rate": sums[:, 1] / len(texts)},
        bootstrap,
    )
    return {
        **result,
        "model": model.name,
        "revision": model.revision,
        "pooling": model.pooling,
        "protocol": "artiagent",
        "n": len(texts),
        "versions": versions("sentence-transformers", "transformers", "torch"),
    }


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """
    Cosine of each row with the row of the same index.

    Args:
        first, second (`np.ndarray` of shape `(samples, channels)`): No row is all zeros.

    Returns:
        `np.ndarray` of shape `(samples,)`, `float64`.

    Example: (3, 4) and (4, 3) have length 5 and product 24.

    ```python
    >>> cosine_similarity(np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 2.0]])).tolist()
    [0.96, 0.0]

    ```
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return (first * second).sum(axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def load_sentence_model(model: str = DEFAULT_MODEL, revision: str | None = None, device: str = "cpu") -> SentenceModel:
    """
    A model of sentence embeddings by the sentence-transformers library. A plain transformers model without that
    library's `modules.json` gets mean pooling. Weights are read from safetensors, and no code of the model is run.

    Args:
        model (`str`, *optional*, defaults to `"sentence-transformers/paraphrase-MiniLM-L6-v2"`): A local folder, or an
            id on the Hub, which is taken from the cache without a network.
        revision (`str`, *optional*): Branch, tag or commit on the Hub; its default branch without it.
        device (`str`, *optional*, defaults to `"cpu"`): Where it runs. Devices differ in the last digits.

    Raises:
        ImportError: no `sentence_transformers` package.
        OSError: the model is not there or has no safetensors; the message says what to fetch.
        ValueError: a `revision` for a folder.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ImportError("CSS needs the package sentence-transformers: pip install 'artiagent[css]'") from error
    name, folder, resolved = _resolve(model, revision)
    try:
        encoder = SentenceTransformer(
            str(folder),
            device=device,
            local_files_only=True,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"{model!r} cannot be read as a model of sentence embeddings with safetensors weights: {error}"
        ) from error
    return SentenceModel(name, resolved, _pooling(encoder), encoder)


def _resolve(model: str, revision: str | None) -> tuple[str, Path, str]:
    """Name, folder and pinned revision of a model."""
    folder = Path(model)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"`revision` must be left out for a folder, got {revision!r} for {model!r}")
        return folder.resolve().name, folder, f"sha256:{_fingerprint(folder)}"
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        snapshot = Path(snapshot_download(model, revision=revision, allow_patterns=list(_MODEL_FILES)))
    except (OSError, HFValidationError) as error:
        command = f"hf download {model}" + (f" --revision {revision}" if revision else "")
        raise OSError(
            f"{model!r} is neither a folder nor a model in the cache of the Hub, and could not be fetched ({error}). "
            f"Run `{command}` once with a network, or give a folder that holds such a model"
        ) from error
    # The cache names the folder of a snapshot by its commit.
    return model, snapshot, snapshot.name


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _MODEL_FILES for path in folder.rglob(pattern)}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _pooling(encoder: SentenceTransformer) -> str:
    from sentence_transformers.sentence_transformer.modules import Pooling

    modes = next((module.pooling_mode for module in encoder if isinstance(module, Pooling)), "none")
    return modes if isinstance(modes, str) else "+".join(modes)
