"""What every reward can do, and its entry in a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from datasets_script.detection.scoring import Scorer
from datasets_script.utils.errors import UserError


class Reward(Protocol):
    """A score of images, higher for better ones. It needs no gradient."""

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> Sequence[float]:
        """
        Score images.

        Args:
            images (`list[PIL.Image.Image]`): RGB.
            prompts (`Sequence[str]`): What each was drawn from.

        Returns:
            `Sequence[float]`: A finite number for each.
        """
        ...

    def identity(self) -> dict[str, Any]:
        """Return everything that scores depend on, JSON-serialisable and without paths of this machine."""
        ...


@dataclass(frozen=True)
class OfImages:
    """
    Reward of what an image shows alone, by a scorer of `artiagent generate`.

    Args:
        scorer (`Scorer`): The scorer.
    """

    scorer: Scorer

    def __call__(self, images: list[Image.Image], prompts: Sequence[str]) -> Sequence[float]:
        return self.scorer(images)

    def identity(self) -> dict[str, Any]:
        return self.scorer.identity()


@dataclass(frozen=True)
class RewardSpec:
    """
    An entry of a recipe's rewards.

    Args:
        kind (`str`): A kind of [`~training.denoiser.rewards.registry.REWARDS`].
        model (`str`): What gives it: a folder, an id on the Hub, or a name, as its kind says.
        weight (`float`, *optional*, defaults to 1.0): Factor in the sum of rewards; below 0 for what shall fall.
        options (`Mapping[str, str]`, *optional*): Options of its kind, as texts.

    Raises:
        UserError: The model is empty.
    """

    kind: str
    model: str
    weight: float = 1.0
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError(f"--rewards must name a model after '{self.kind}=', got none")

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> RewardSpec:
        """
        Read an entry as a recipe or the command line gives it.

        Args:
            value (`str` or `Mapping`): `kind`, `model`, `weight` and options of the kind by name; or a text
                `KIND=MODEL`, with the others after commas: `"bertscore=runs/vlm,alpha=0.1,weight=2"`.

        Raises:
            UserError: It has another form.
        """
        if isinstance(value, str):
            value = _read_text(value)
        if missing := sorted({"kind", "model"} - set(value)):
            raise UserError(f"--rewards must have entries with kind and model, got one without {missing[0]}")
        options = {name: str(text) for name, text in value.items() if name not in ("kind", "model", "weight")}
        try:
            weight = float(value.get("weight", 1.0))
        except (TypeError, ValueError):
            raise UserError(f"--rewards must have a number as weight, got {value['weight']!r}") from None
        return cls(str(value["kind"]), str(value["model"]), weight, options)

    def read(self, **kinds: Callable[[str], Any]) -> dict[str, Any]:
        """
        Read the options.

        Args:
            kinds (`Callable[[str], Any]`): What reads each option that the kind has, by name, such as `float`.

        Returns:
            `dict[str, Any]`: Values of the options that are given.

        Raises:
            UserError: An option is unknown or has another form.
        """
        values = {}
        for name, text in self.options.items():
            if name not in kinds:
                known = ", ".join(["weight", *kinds])
                raise UserError(f"--rewards of kind '{self.kind}' must have options among {known}, got '{name}'")
            try:
                values[name] = kinds[name](text)
            except ValueError:
                raise UserError(
                    f"--rewards must have {'a number' if kinds[name] in (int, float) else 'another value'} as {name} "
                    f"of '{self.kind}', got '{text}'"
                ) from None
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as a recipe gives it, JSON-serialisable."""
        weight = {} if self.weight == 1.0 else {"weight": self.weight}
        return {"kind": self.kind, "model": self.model, **weight, **self.options}


def _read_text(text: str) -> dict[str, Any]:
    parts = [part.partition("=") for part in text.split(",")]
    if any(not equals for _, equals, _ in parts):
        raise UserError(
            f"--rewards must be KIND=MODEL, such as detector=embedded or classes=runs/vlm,weight=2, got '{text}'"
        )
    (kind, _, model), *others = parts
    return {"kind": kind, "model": model, **{name: value for name, _, value in others}}
