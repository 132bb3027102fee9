"""What can be checked of a plan before the first byte of weights is downloaded or loaded."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from diffusers_artifact.presets import EMBEDDED

from ..agents.curation.perceptual import check_perceptual_metric
from ..utils.errors import ArgumentError
from ..utils.hub_access import HubModel, check_room, look_up


if TYPE_CHECKING:
    from .plan import RunPlan


logger = logging.getLogger(__name__)


def check_before_loading(plan: RunPlan) -> None:
    """
    Check the output folder, the perceptual metric, and the access, licence and size of all models, in this order.
    Licences that do not allow commercial use are named in a warning.

    Args:
        plan (`RunPlan`): The plan.

    Raises:
        UserError: Something is missing or does not fit; the message says what to do.
    """
    _check_out(plan)
    check_perceptual_metric(plan.settings.perceptual_metric)
    models = [found for found in (look_up(*one) for one in _named_models(plan)) if found is not None]
    _warn_of_licenses(models)
    check_room(models)


def _check_out(plan: RunPlan) -> None:
    place = next(folder for folder in (plan.out, *plan.out.absolute().parents) if os.path.lexists(folder))
    if not place.is_dir():
        raise ArgumentError(
            f"`out` must be a folder, got '{plan.out}', of which '{place}' is no folder; "
            "choose another folder. Nothing was written"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ArgumentError(
            f"`out` must be a folder that may be written to, got '{plan.out}'; choose another folder. Nothing was "
            "written"
        )


def _named_models(plan: RunPlan) -> list[tuple[str, str, str | None]]:
    """Return argument, name and revision of all models that are loaded on this machine."""
    settings, named = plan.settings, []
    if settings.model != EMBEDDED:
        named.append(("model", settings.model, settings.revision))
    if plan.vlm is not None and not plan.vlm.endpoint:
        named.append(("vlm", plan.vlm.model, plan.vlm.revision))
    if plan.judge is not None:
        named.append(("judge", plan.judge, None))
    return named + [(argument, model, None) for argument, model in plan.perception.checkpoints().items()]


def _warn_of_licenses(models: list[HubModel]) -> None:
    for found in models:
        if found.is_non_commercial:
            logger.warning(
                "%s is published under '%s', which does not allow commercial use; read it before you use or publish "
                "the pairs",
                found.model,
                found.license,
            )
