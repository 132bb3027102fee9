"""Cosine similarity of the sentence embeddings of explanations and their references (CSS in ArtiAgent §8)."""

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

# Configuration, vocabulary and weights, but no pickles and no code.
_MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass(frozen=True, eq=False)
class SentenceModel:
    """
    Sentence embedding model, with the settings that its scores depend on.

    Attributes:
        name (`str`): Id on the Hub, or name of the model's folder.
        revision (`str`): Commit on the Hub, or `sha256:` and a fingerprint of the folder's files.
        pooling (`str`): Pooling of token embeddings: `"mean"`, `"cls"`, ...
        encoder (`SentenceTransformer`): The loaded model.
    """

    name: str
    revision: str
    pooling: str
    encoder: SentenceTransformer

    def embed(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """
        Compute the embeddings of texts.

        Args:
            texts (`Sequence[str]` of length `texts`): Texts, truncated to the maximum length of the model.
            batch_size (`int`, *optional*, defaults to 32): Number of texts per batch.

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
    Compute the mean cosine similarity of the sentence embeddings of predictions and references.

    A prediction that is `None` or blank scores 0 and is counted in `empty_rate`. If the model is missing, an error is
    raised; no other measure replaces it.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): Texts written by the model under test; `None` if it
            wrote nothing.
        references (`Sequence[str]` of length `samples`): Expected texts, not blank.
        model (`str` or `SentenceModel`, *optional*, defaults to `"sentence-transformers/paraphrase-MiniLM-L6-v2"`):
            Sentence embedding model with safetensors weights: an id on the Hub, a local folder, or the result of
            [`load_sentence_model`], to load it once for several calls. With the latter, `revision` and `device` are
            ignored.
        revision (`str`, *optional*): Branch, tag or commit on the Hub. If not given, the default branch.
        device (`str`, *optional*, defaults to `"cpu"`): Device of the model. Scores differ between devices in the
            last digits.
        batch_size (`int`, *optional*, defaults to 32): Number of texts per batch.
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `css` in [-1, 1] and `empty_rate` in [0, 1], each with an `_interval`; `model`, `revision`
        and `pooling`, which the score depends on; `protocol`, `n` (samples) and `versions`.

    Raises:
        ImportError: The package `sentence_transformers` is not installed.
        OSError: The model cannot be found or read; the message says how to fetch it.
        ValueError: Lengths differ, there is no sample, or a reference is blank.
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
        # A similarity lies in [-1, 1] and is no share of samples.
        {"empty_rate": len(texts)},
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
    Compute the cosine of each row of one array with the same row of another.

    Args:
        first, second (`np.ndarray` of shape `(samples, channels)`): Arrays without a row of zeros.

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
    Load a sentence embedding model with the sentence-transformers library.

    A plain transformers model without that library's `modules.json` gets mean pooling. Weights are read from
    safetensors, and no code of the model is run.

    Args:
        model (`str`, *optional*, defaults to `"sentence-transformers/paraphrase-MiniLM-L6-v2"`): Local folder, or id
            on the Hub. Without a network, the model is read from the cache.
        revision (`str`, *optional*): Branch, tag or commit on the Hub. If not given, the default branch.
        device (`str`, *optional*, defaults to `"cpu"`): Device of the model. Embeddings differ between devices in the
            last digits.

    Returns:
        `SentenceModel`: The model.

    Raises:
        ImportError: The package `sentence_transformers` is not installed.
        OSError: The model cannot be found or has no safetensors weights; the message says how to fetch it.
        ValueError: `model` is a folder and `revision` is given.
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
            f"`model` must be a sentence embedding model with safetensors weights, got {model!r}: {error}"
        ) from error
    return SentenceModel(name, resolved, _pooling(encoder), encoder)


def _resolve(model: str, revision: str | None) -> tuple[str, Path, str]:
    """Find name, folder and pinned revision of a model."""
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
            f"`model` must be a folder or a model on the Hub, got {model!r}, which is not in the cache and could not "
            f"be fetched ({error}); run `{command}` once with a network, or give a folder that holds the model"
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
