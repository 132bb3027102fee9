"""Chain of the stages, with what a run records of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agents.curation.curator import Curator
from ..agents.curation.perceptual import load_perceptual_metric
from ..agents.perception import PerceptionAgent
from ..agents.perception.vocabulary import VocabularyPerception
from ..utils.background import Background
from ..vlm import VLM
from .banner import models_banner
from .card import Card
from .chains import CHAINS
from .diffusion_model import DiffusionModel
from .injector import Injector
from .settings import CommonSettings
from .stages import Encode, Explain, Inject, Invert, Locate, Name, Perceive, Plan, Read, Sample, Stage


if TYPE_CHECKING:
    from ..detection.pixel.detector import PixelDetector


@dataclass(frozen=True)
class Ahead:
    """
    Stages whose time is the latency of an endpoint, so that another thread may do them ahead of all others.

    Attributes:
        stages (`Sequence[Stage]`): Stages, in order.
        interrupt (`Callable[[], None]`): Ends what that thread waits for.
    """

    stages: Sequence[Stage]
    interrupt: Callable[[], None]


@dataclass(frozen=True, eq=False)
class Synthesizer:
    """
    Chain of stages from source ids to pairs.

    Args:
        stages (`Sequence[Stage]`): Stages, in order.
        settings (`CommonSettings`): Settings of the run.
        identity (`Mapping`, *optional*): What results depend on besides the settings, such as models and revisions;
            JSON-serialisable.
        counters (`Callable[[], Mapping[str, float]]`, *optional*): Function that returns running counts of NFE,
            requests and tokens, by name.
        card (`Card`, *optional*): Device of the models, which counts time and memory of the phases.
        about (`str`, *optional*): What models the run uses, for its user.
        ahead (`Ahead`, *optional*): Stages before `stages`, which [`prepared`] does ahead.
    """

    stages: Sequence[Stage]
    settings: CommonSettings
    identity: Mapping[str, Any] = field(default_factory=dict)
    counters: Callable[[], Mapping[str, float]] = dict
    card: Card | None = None
    about: str = ""
    ahead: Ahead | None = None

    @classmethod
    def of(
        cls,
        source_folder: Path,
        perception: PerceptionAgent,
        model: DiffusionModel,
        settings: CommonSettings,
        vlm: VLM | None = None,
        batch_size: int = 1,
        perception_batch_size: int = 1,
        phase_size: int = 1,
        detector: PixelDetector | None = None,
        look_ahead: bool = True,
    ) -> Synthesizer:
        """
        Chain the stages that turn photos into pairs: read, perceive, plan, encode, inject, explain; and, before the
        last, invert, if noise is stored.

        Args:
            source_folder (`Path`): Folder that source ids are relative to.
            perception (`PerceptionAgent`): Loaded perception backend.
            model (`DiffusionModel`): Loaded diffusion model, of the way of making artifacts that `settings` choose.
            settings (`CommonSettings`): Settings of the run.
            vlm (`VLM`, *optional*): Vision-language model that judges and explains; without one, image metrics judge
                and templates explain.
            batch_size (`int`, *optional*, defaults to 1): Photos per batch of injection. Above 1, pixels may differ by
                one grey level, because sums are taken in another order.
            perception_batch_size (`int`, *optional*, defaults to 1): Photos per batch of perception and explanation.
            phase_size (`int`, *optional*, defaults to 1): Photos that are perceived before the first is injected.
            detector (`PixelDetector`, *optional*): Gives a second opinion on the artifacts that are kept.
            look_ahead (`bool`, *optional*, defaults to `True`): If perception asks an endpoint, ask it what is in the
                photos of the next shard while artifacts are injected into those of this one.
        """
        metric = load_perceptual_metric(settings.perceptual_metric)
        curator = Curator(settings.curation, metric, vlm, detector, settings.region_gates)
        planner = CHAINS[type(settings)].planner(settings, model.pipeline.patch_size)
        perceive, ahead = Perceive(perception, perception_batch_size, model.card), None
        if look_ahead and isinstance(perception, VocabularyPerception) and perception.vlm.is_remote:
            perceive = Locate(perception, perception_batch_size, model.card)
            ahead = Ahead([Read(source_folder), Name(perception, perception_batch_size)], perception.vlm.cancel)
        stages = [
            Read(source_folder),
            perceive,
            Plan(planner, settings, model.sample_size),
            Encode(model, phase_size),
            Inject(model, curator, planner, settings.max_rerolls, batch_size),
            *([Invert(model)] if settings.stores_noise and isinstance(model, Injector) else []),
            Explain(curator, model, settings.seed, perception_batch_size),
        ]
        identity = {
            "model_revision": model.revision,
            "perception": perception.identity(),
            "curation": curator.identity(),
        }

        def counters() -> dict[str, float]:
            usage = {} if vlm is None else {f"vlm_{name}": count for name, count in asdict(vlm.usage).items()}
            spent = {
                "num_function_evaluations": model.num_function_evaluations,
                "token_evaluations": model.token_evaluations,
            }
            return spent | usage

        about = models_banner(model, curator, settings)
        settings = replace(settings, loading=model.loading)
        return cls(stages, settings, identity, counters, model.card, about, ahead)

    def run(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Run all stages lazily, one after the other."""
        return self.finish(_through(self.ahead.stages if self.ahead else (), samples))

    @contextmanager
    def prepared(self, samples: Iterable[Sample]) -> Iterator[Iterator[Sample]]:
        """
        Do ahead, in another thread, what can be done ahead for up to a shard of samples. The thread ends with the
        context.

        Args:
            samples (`Iterable[Sample]`): Samples of all shards. If anything is done ahead, only that thread iterates.

        Returns:
            `Iterator[Sample]`: The samples, in order, for [`finish`]. It raises what was raised in that thread.
        """
        if self.ahead is None:
            yield iter(samples)
            return
        made = _through(self.ahead.stages, samples)
        with closing(Background(made, self.settings.shard_size, self.ahead.interrupt)) as background:
            yield background

    def finish(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Run the stages lazily that follow those done ahead."""
        return _through(self.stages, samples)


def _through(stages: Iterable[Stage], samples: Iterable[Sample]) -> Iterator[Sample]:
    for stage in stages:
        samples = stage.run(samples)
    return iter(samples)
