"""What is recorded of a training."""

from __future__ import annotations

from training.denoiser.policy import scheduler_of_policy
from training.denoiser.rollout import Denoiser, SamplingSettings
from training.denoiser.run import schedulers_of

from ...helpers.tiny_pipelines import tiny_flux, tiny_sd


def test_a_record_names_the_scheduler_of_pictures_and_that_of_the_pipeline():
    flow = Denoiser(tiny_flux(), SamplingSettings(2, 3.5, 32, 32))
    assert len(set(schedulers_of(flow).values())) == 1
    pipeline, settings = tiny_sd(), SamplingSettings(2, 1.0, 32, 32)
    own = type(pipeline.scheduler).__name__
    assert schedulers_of(Denoiser(pipeline, settings)) == {"scheduler": own, "pipeline_scheduler": own}
    rewarded = Denoiser(pipeline, settings, scheduler_of_policy(pipeline.scheduler))
    assert schedulers_of(rewarded) == {"scheduler": "DDIMScheduler", "pipeline_scheduler": own}
    assert own != "DDIMScheduler"
