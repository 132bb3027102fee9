"""
Kind `no`: the probability of "No" as a vision-language model's answer to whether an image has artifacts.

It is read from the logits of the first token, so images that all get the same word still get rewards that differ. A
server gives no logits; use `classes` with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from datasets_script.utils.errors import UserError
from datasets_script.vlm.local import LocalVLM
from training.denoiser.rewards.answers import VLM_OPTIONS, identity_of, load_vlm, requests_about
from training.denoiser.rewards.base import Reward, RewardSpec


_YES, _NO = ("Yes", "yes", "YES", " Yes", " yes"), ("No", "no", "NO", " No", " no")


class NoReward:
    """
    Reward P(no) / (P(yes) + P(no)), in [0, 1].

    Args:
        vlm (`LocalVLM`): The model that is asked.

    Raises:
        UserError: Its tokenizer does not tell "Yes" from "No" by the first token.
    """

    def __init__(self, vlm: LocalVLM) -> None:
        yes, no = (_first_tokens(vlm, words) for words in (_YES, _NO))
        self.vlm, self.yes, self.no = vlm, sorted(yes - no), sorted(no - yes)
        if not self.yes or not self.no:
            raise UserError(
                f"--rewards of kind 'no' must have a model whose tokenizer tells yes from no, got '{vlm.model}'; use "
                "classes"
            )

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> list[float]:
        logits = self.vlm.first_logits(requests_about(images, "detection", self.vlm))
        yes, no = (logits[:, tokens].logsumexp(1) for tokens in (self.yes, self.no))
        found: list[float] = torch.sigmoid(no - yes).tolist()
        return found

    def identity(self) -> dict[str, Any]:
        return identity_of(self.vlm, "P(no)", "detection")


def load(spec: RewardSpec, device: str) -> Reward:
    """
    Load the model of a folder or Hub id; see [`~training.denoiser.rewards.registry.load_rewards`].

    Raises:
        UserError: It is behind an endpoint.
    """
    options = spec.read(**VLM_OPTIONS)
    vlm = load_vlm(spec, options, device)
    if not isinstance(vlm, LocalVLM):
        raise UserError(
            f"--rewards of kind 'no' must have a model on this machine, as a server gives no logits, got the endpoint "
            f"'{options['endpoint']}'; use classes"
        )
    return NoReward(vlm)


def _first_tokens(vlm: LocalVLM, words: Sequence[str]) -> set[int]:
    encoded = [vlm.processor.tokenizer.encode(word, add_special_tokens=False) for word in words]
    return {tokens[0] for tokens in encoded if tokens}
