"""
Kind `bertscore`: SynArtifact's reward (eq. 4), by how alike a vision-language model's answer is to "No artifacts" and
to the names of the 13 classes.

    r = BERTScore("No artifacts", answer) − α Σ_k BERTScore(s_k, answer) + β

The paper names neither the encoder of BERTScore nor α and β, which shall keep r positive. Here α is 1/13, so that the
sum is a mean, and β is 1/2. Advantages do not depend on β.

**Weakness, measured** with all-MiniLM-L6-v2, layer 5, α = 1/13, β = 0:

| answer | r |
|---|---|
| 1. No artifacts. | +.372 |
| The hand has artifacts. | +.156 |
| I cannot tell. | +.048 |
| 1. Distorted and deformed components. | −.080 |
| 1. Distorted and deformed components. 2. Duplicated components. | −.085 |

Dodging the question is worth more than a true diagnosis, and so is a sentence that shares words with "No artifacts"
and says the opposite. It is here to repeat the paper; `classes` and `no` reward what is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from datasets_script.utils.errors import UserError
from datasets_script.utils.files import resolve_revision
from datasets_script.utils.hub_ids import last_name
from datasets_script.vlm.base import VLM
from evaluate_metrics.functional.classification import CLASSES, NO_ARTIFACTS
from training.denoiser.rewards.answers import VLM_OPTIONS, answers_about, identity_of, load_vlm
from training.denoiser.rewards.base import Reward, RewardSpec


# The default of the package bert_score for English.
DEFAULT_ENCODER, DEFAULT_LAYER = "roberta-large", 17
_PHRASES = [kind.name for kind in CLASSES if kind != NO_ARTIFACTS]
# Of tokenizers without a limit of their own.
_MOST_TOKENS = 512


class BertScore:
    """
    F1 of BERTScore, without weights of rare words and without rescaling by a baseline. It agrees with the package
    bert_score to four digits.

    Args:
        encoder (`str`, *optional*, defaults to `"roberta-large"`): Folder, or id on the Hub, of a text encoder.
        layer (`int`, *optional*): Hidden layer whose outputs are compared, from 1. Must be given for another encoder
            than the default, whose layer is 17.
        revision (`str`, *optional*): Branch, tag or commit of the encoder.
        device (`str`, *optional*, defaults to `"cpu"`): Device.

    Raises:
        UserError: There is no such encoder, or no such layer.
    """

    def __init__(
        self,
        encoder: str = DEFAULT_ENCODER,
        layer: int | None = None,
        revision: str | None = None,
        device: str = "cpu",
    ) -> None:
        if layer is None and encoder != DEFAULT_ENCODER:
            raise UserError(f"--rewards of kind 'bertscore' must have a layer for the encoder '{encoder}', got none")
        try:
            commit, recorded = resolve_revision(encoder, revision)
            # Byte-level tokenizers tell the first word of a text from others, BERTScore does not.
            self.tokenizer = AutoTokenizer.from_pretrained(encoder, revision=commit, add_prefix_space=True)
            network = AutoModel.from_pretrained(encoder, revision=commit, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UserError(f"--rewards must have an encoder that can be loaded, got '{encoder}': {error}") from error
        self.layer, layers = DEFAULT_LAYER if layer is None else layer, network.config.num_hidden_layers
        if not 1 <= self.layer <= layers:
            raise UserError(f"--rewards must have a layer between 1 and {layers} of '{encoder}', got {self.layer}")
        self.network = network.eval().requires_grad_(False).float().to(device)
        self.name, self.revision = last_name(encoder), recorded

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> torch.Tensor:
        """
        Compare texts.

        Args:
            candidates, references (`Sequence[str]`): Texts, most often answers and phrases.

        Returns:
            `torch.Tensor` of shape `(candidates, references)`, `float32`: F1. That of an empty text is 0.
        """
        encoded = {text: self._encode(text) for text in dict.fromkeys([*candidates, *references])}
        found = [[_f1(*encoded[text], *encoded[reference]) for reference in references] for text in candidates]
        return torch.tensor(found, dtype=torch.float32).reshape(len(candidates), len(references))

    def identity(self) -> dict[str, Any]:
        """Return what scores depend on."""
        return {"encoder": self.name, "revision": self.revision, "layer": self.layer}

    @torch.inference_mode()
    def _encode(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return directions of the tokens, of shape `(tokens, channels)`, and which of them count."""
        most = min(self.tokenizer.model_max_length, _MOST_TOKENS)
        inputs = self.tokenizer(text.strip(), truncation=True, max_length=most, return_tensors="pt")
        tokens = inputs["input_ids"][0]
        inputs = inputs.to(self.network.device)
        states = self.network(**inputs, output_hidden_states=True).hidden_states[self.layer][0]
        # Begin and end may be matched, but need no match.
        ends = (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)
        counts = torch.tensor([token not in ends for token in tokens.tolist()])
        return torch.nn.functional.normalize(states, dim=-1).cpu(), counts


def _f1(
    candidate: torch.Tensor, candidate_counts: torch.Tensor, reference: torch.Tensor, reference_counts: torch.Tensor
) -> float:
    """
    Compute F1 of two texts (BERTScore §3): each token that counts is matched with the most similar one.

    Args:
        candidate, reference (`torch.Tensor` of shape `(tokens, channels)`): Unit vectors.
        candidate_counts, reference_counts (`torch.Tensor` of shape `(tokens,)`, `bool`): Which tokens count.
    """
    if not candidate_counts.any() or not reference_counts.any():
        return 0.0
    similarity = candidate @ reference.T
    precision = similarity.amax(1)[candidate_counts].mean()
    recall = similarity.amax(0)[reference_counts].mean()
    return float((2 * precision * recall / (precision + recall)).nan_to_num(0.0))


def synartifact_reward(similarities: torch.Tensor, alpha: float, beta: float) -> torch.Tensor:
    """
    Compute SynArtifact's reward (eq. 4).

    Args:
        similarities (`torch.Tensor` of shape `(answers, 14)`): BERTScore of each answer with "No artifacts" and with
            the names of the 13 classes.
        alpha, beta (`float`): Weight of the classes, and offset.

    Returns:
        `torch.Tensor` of shape `(answers,)`.
    """
    return similarities[:, 0] - alpha * similarities[:, 1:].sum(1) + beta


def answers_reward(bertscore: BertScore, answers: Sequence[str], alpha: float, beta: float) -> list[float]:
    """Compute the [`synartifact_reward`] of each answer."""
    similarities = bertscore(answers, [NO_ARTIFACTS.name, *_PHRASES])
    found: list[float] = synartifact_reward(similarities, alpha, beta).tolist()
    return found


class BertScoreReward:
    """
    SynArtifact's reward; see the head of this file.

    Args:
        vlm (`VLM`): The model that is asked.
        bertscore (`BertScore`): What compares texts.
        alpha, beta (`float`, *optional*, default to 1/13 and 0.5): See [`synartifact_reward`].
    """

    def __init__(self, vlm: VLM, bertscore: BertScore, alpha: float = 1 / len(_PHRASES), beta: float = 0.5) -> None:
        self.vlm, self.bertscore, self.alpha, self.beta = vlm, bertscore, alpha, beta

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> list[float]:
        answers = answers_about(images, "classification", self.vlm)
        return answers_reward(self.bertscore, answers, self.alpha, self.beta)

    def identity(self) -> dict[str, Any]:
        identity = identity_of(self.vlm, "SynArtifact's BERTScore reward", "classification")
        return identity | {"alpha": self.alpha, "beta": self.beta, "bertscore": self.bertscore.identity()}


def load(spec: RewardSpec, device: str) -> Reward:
    """Load the model that is asked and the encoder; see [`~training.denoiser.rewards.registry.load_rewards`]."""
    options = spec.read(**VLM_OPTIONS, encoder=str, encoder_revision=str, layer=int, alpha=float, beta=float)
    bertscore = BertScore(
        options.get("encoder", DEFAULT_ENCODER),
        options.get("layer"),
        options.get("encoder_revision"),
        options.get("device", device),
    )
    given = {name: options[name] for name in ("alpha", "beta") if name in options}
    return BertScoreReward(load_vlm(spec, options, device), bertscore, **given)
