"""Word overlap of explanations with their references (ArtiAgent §8: ROUGE-L F with stemmer)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import Bootstrap, score_with_intervals
from .texts import check_texts
from .versions import versions


ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(
    predictions: Sequence[str | None],
    references: Sequence[str],
    use_stemmer: bool = True,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Any]:
    """
    Compute the mean ROUGE F of texts with Google's `rouge_score`.

    Its tokenizer lower-cases and keeps only `a-z` and `0-9`: a text in another script has no token and scores 0.
    ROUGE-Lsum treats each line of a text as a sentence. A prediction that is `None` or blank scores 0 and is counted
    in `empty_rate`.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): Texts written by the model; `None` if it wrote
            nothing.
        references (`Sequence[str]` of length `samples`): Expected texts, not blank.
        use_stemmer (`bool`, *optional*, defaults to `True`): Whether to stem words (Porter), so that "fingers" matches
            "finger".
        bootstrap (`Bootstrap`, *optional*): Settings of the intervals.

    Returns:
        `dict[str, Any]`: `rouge1`, `rouge2`, `rougeL`, `rougeLsum` and `empty_rate`, in [0, 1] and each with an
        `_interval`; `use_stemmer`, `protocol`, `n` (samples) and `versions`.

    Raises:
        ImportError: The package `rouge_score` is not installed.
        ValueError: Lengths differ, there is no sample, or a reference is blank.

    Example: three of four words are shared in order, so precision and recall of ROUGE-L are 3/4.

    ```python
    >>> result = rouge(["the hand has fingers", None], ["the hand lacks finger", "blurred face"])
    >>> result["rougeL"], result["rouge2"], result["empty_rate"]
    (0.375, 0.16666666666666666, 0.5)

    ```
    """
    empty = [not (prediction or "").strip() for prediction in predictions]
    statistics = np.column_stack([rouge_statistics(predictions, references, use_stemmer), empty])
    names = (*ROUGE_TYPES, "empty_rate")
    n = len(references)
    result = score_with_intervals(
        statistics,
        lambda sums: {name: sums[:, column] / n for column, name in enumerate(names)},
        bootstrap,
        dict.fromkeys(names, float(n)),
    )
    return {
        **result,
        "use_stemmer": use_stemmer,
        "protocol": "artiagent",
        "n": n,
        "versions": versions("rouge-score"),
    }


def count_unread(texts: Sequence[str]) -> int:
    """
    Count texts most of whose letters ROUGE does not see: its tokenizer keeps a to z and digits alone, so that texts in
    Chinese, Thai or Cyrillic score 0 whatever they say.

    Args:
        texts (`Sequence[str]`): The texts.

    Example:

    ```python
    >>> count_unread(["La cafetière a un bec de trop.", "多了一根手指"])
    1

    ```
    """
    letters = [[character for character in text.lower() if character.isalnum()] for text in texts]
    return sum(2 * sum(character.isascii() for character in of_text) < len(of_text) for of_text in letters)


def rouge_statistics(
    predictions: Sequence[str | None], references: Sequence[str], use_stemmer: bool = True
) -> np.ndarray:
    """
    Compute the ROUGE F of each sample.

    Args:
        predictions (`Sequence[str | None]` of length `samples`): Texts written by the model; `None` if it wrote
            nothing.
        references (`Sequence[str]` of length `samples`): Expected texts, not blank.
        use_stemmer (`bool`, *optional*, defaults to `True`): Whether to stem words (Porter).

    Returns:
        `np.ndarray` of shape `(samples, 4)`, `float64`: Scores in [0, 1], in the order of `ROUGE_TYPES`.

    Raises:
        ImportError: The package `rouge_score` is not installed.
        ValueError: Lengths differ, or a reference is blank.
    """
    check_texts(predictions, references)
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ImportError("ROUGE needs the package rouge_score: pip install 'artiagent[evaluate]'") from error
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=use_stemmer)
    statistics = np.zeros((len(references), len(ROUGE_TYPES)))
    for row, prediction, reference in zip(statistics, predictions, references, strict=True):
        scores = scorer.score(reference, prediction or "")
        row[:] = [scores[name].fmeasure for name in ROUGE_TYPES]
    return statistics
