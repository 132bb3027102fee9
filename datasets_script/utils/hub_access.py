"""What the Hub says of a model before its weights are downloaded: access, licence, and size."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ArgumentError, UserError
from .hub_ids import is_hub_id


_SECONDS_TO_ANSWER = 10
_GB = 1e9


@dataclass(frozen=True)
class HubModel:
    """
    A model on the Hub, as far as it is known without a download.

    Attributes:
        model (`str`): Id of its repository.
        license (`str`): Identifier or name of its licence; empty if the repository names none.
        missing_bytes (`int`): Size of its weights that are not in the cache yet.
    """

    model: str
    license: str
    missing_bytes: int

    @property
    def is_non_commercial(self) -> bool:
        """Return whether the licence says in its name that it does not allow commercial use."""
        name = self.license.lower()
        return "non-commercial" in name or "noncommercial" in name or "-nc" in name


def look_up(argument: str, model: str, revision: str | None = None) -> HubModel | None:
    """
    Ask the Hub about a model, without downloading anything.

    Args:
        argument (`str`): Name of the argument that gives the model, for messages.
        model (`str`): A folder, or the id of a repository on the Hub.
        revision (`str`, *optional*): Branch, tag or commit.

    Returns:
        `HubModel`: What the Hub says; `None` for folders, and if the Hub cannot be asked, as a cached model needs no
        network.

    Raises:
        ArgumentError: The repository does not exist, or its files may not be downloaded with the token in use.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if Path(model).exists() or not is_hub_id(model) or constants.HF_HUB_OFFLINE:
        return None
    # `OSError`, and the base of the HTTP client's errors, whose package depends on the library's version.
    no_answer: tuple[type[Exception], ...] = HfHubHTTPError.__bases__
    api, page = HfApi(), f"{constants.ENDPOINT}/{model}"
    try:
        info = api.model_info(model, revision=revision, files_metadata=True, timeout=_SECONDS_TO_ANSWER)
        if info.gated:
            api.auth_check(model)
    except GatedRepoError as error:
        raise ArgumentError(
            f"`{argument}` {model} is gated: accept its licence at {page}, run `hf auth login` with a token of that "
            "account, and run the same command again. Nothing was downloaded"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at revision '{revision}'" if revision else ""
        raise ArgumentError(
            f"`{argument}` must be a folder or a repository on the Hub, found no {model}{at} at {constants.ENDPOINT}; "
            "check its name, or run `hf auth login` if it is private"
        ) from error
    # Loading says so if the cache does not hold it.
    except no_answer:
        return None
    card = info.card_data
    license_name = (card.get("license_name") or card.get("license") or "") if card else ""
    return HubModel(model, str(license_name), _missing_bytes(model, info))


def why_not_loaded(error: BaseException) -> str:
    """
    Tell in one line why a model could not be loaded: its libraries do not always say that the Hub is out of reach.

    Args:
        error (`BaseException`): What a library raised.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
            reached = (
                "is not asked while HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "cannot be reached"
            )
            return f"it is not in the cache, and the Hub {reached}"
        cause = cause.__cause__ or cause.__context__
    return " ".join(str(error).split()).rstrip(". ")


def check_room(models: Iterable[HubModel]) -> None:
    """
    Check that the weights that are missing fit on the disk of the Hub's cache.

    Raises:
        UserError: They do not.
    """
    from huggingface_hub import constants

    missing = {found.model: found.missing_bytes for found in models if found.missing_bytes}
    cache = Path(constants.HF_HUB_CACHE)
    free = free_bytes(cache)
    if sum(missing.values()) > free:
        raise UserError(
            f"the weights of {', '.join(missing)} take {sum(missing.values()) / _GB:.1f} GB, but '{cache}' has room "
            f"for {free / _GB:.1f} GB; free some space, or set HF_HOME to a folder on another disk. Nothing was "
            "downloaded"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


def _missing_bytes(model: str, info: Any) -> int:
    """Count the bytes of the weights that are loaded and not cached: a pipeline's components', or those at the top."""
    from huggingface_hub import try_to_load_from_cache

    files = {entry.rfilename: entry.size or 0 for entry in info.siblings or ()}
    of_pipeline = "model_index.json" in files
    return sum(
        size
        for name, size in files.items()
        # Other precisions, such as `model.fp16.safetensors`, are not loaded.
        if name.endswith(".safetensors") and name.count(".") == 1 and ("/" in name) is of_pipeline
        if not isinstance(try_to_load_from_cache(model, name, revision=info.sha), str)
    )
