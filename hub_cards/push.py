"""Send a payload to the Hub in one commit, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from datasets_script.utils.errors import UserError

from .payload import CARD, Payload, is_allowed, is_license, missing_mark


_NOT_OURS = (".gitattributes", CARD)


class HubUnavailable(Exception):
    """Raised if the Hub fails or cannot be reached. The same push can be repeated."""


@dataclass(frozen=True)
class Target:
    """
    State of the repository before a push.

    Attributes:
        commit (`str`): Latest commit.
        is_new (`bool`): Whether the push created the repository.
        deleted (`tuple[str, ...]`): Files to delete, since the payload no longer has them, such as shards of a larger
            earlier dataset. Licences and notices stay, since people add them on the Hub.
    """

    commit: str
    is_new: bool
    deleted: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """
    Result of a push.

    Attributes:
        url (`str`): URL of the repository.
        commit (`str`): Latest commit.
        is_changed (`bool`): Whether the push made this commit.
    """

    url: str
    commit: str
    is_changed: bool


def check_repo_id(repo_id: str) -> str:
    """
    Return a repository's id after checking it.

    Raises:
        UserError: It does not have the form `owner/name`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"REPO must be OWNER/NAME, got '{repo_id}': {error}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"REPO must be OWNER/NAME with a user or organisation as OWNER, got '{repo_id}'")
    return repo_id


def prepare_target(api: HfApi, payload: Payload, private: bool) -> Target:
    """
    Find the repository, or create it.

    Args:
        api (`HfApi`): Client of the Hub.
        payload (`Payload`): Payload to send.
        private (`bool`): Whether to make a new repository private.

    Returns:
        `Target`: State of the repository.

    Raises:
        UserError: The token does not permit it, the repository holds something else, or it is public and `private` is
            set.
        HubUnavailable: The Hub fails or cannot be reached.
    """
    with _in_one_line(payload):
        return _find_or_create(api, payload, private)


def push(api: HfApi, payload: Payload, target: Target, message: str) -> Pushed:
    """
    Commit a payload on top of `target.commit`, or change nothing if the repository has a later commit.

    Uses `create_commit`, since `upload_folder` with Xet splits a large folder into several commits. Blobs are uploaded
    before the commit. If the push fails, uploaded blobs are not sent again.

    Args:
        api (`HfApi`): Client of the Hub.
        payload (`Payload`): Payload to send.
        target (`Target`): Result of [`prepare_target`].
        message (`str`): Message of the commit.

    Returns:
        `Pushed`: URL and commit.

    Raises:
        UserError: The token does not permit it, the repository has a later commit, or the Hub rejects the card.
        HubUnavailable: The Hub fails or cannot be reached.
    """
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        *(CommitOperationAdd(file.path, file.content) for file in payload.files),
        *(CommitOperationDelete(path) for path in target.deleted),
    ]
    with _in_one_line(payload):
        info = api.create_commit(
            payload.repo_id,
            operations,
            commit_message=message,
            repo_type=payload.repo_type,
            parent_commit=target.commit,
        )
    folder = "" if payload.repo_type == "model" else f"{payload.repo_type}s/"
    return Pushed(f"{api.endpoint}/{folder}{payload.repo_id}", info.oid, info.oid != target.commit)


def _find_or_create(api: HfApi, payload: Payload, private: bool) -> Target:
    repo_id, repo_type = payload.repo_id, payload.repo_type
    # Check the token first, since with an invalid token a repository seems not to exist.
    api.whoami()
    try:
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        # None selects the default of the account.
        api.create_repo(repo_id, repo_type=repo_type, private=private or None, space_sdk=payload.kind.space_sdk)
        return Target(str(api.repo_info(repo_id, repo_type=repo_type).sha), True, ())
    if private and not info.private:
        raise UserError(
            f"--private must be used with a new or private repository, got {repo_id}, which is public; change its "
            "visibility on the Hub"
        )
    there = api.list_repo_files(repo_id, repo_type=repo_type, revision=info.sha)
    _check_same_kind(payload, there)
    sent = {file.path for file in payload.files}
    allowed = [path for path in there if is_allowed(payload.kind, path) and not is_license(path)]
    return Target(str(info.sha), False, tuple(sorted(set(allowed) - sent)))


def _check_same_kind(payload: Payload, there: Sequence[str]) -> None:
    # Other kinds have files of the same names, such as config.json, so that a file that is allowed proves nothing.
    others = [path for path in there if path not in _NOT_OURS and not is_license(path)]
    missing = missing_mark(payload.kind, payload.repo_id, there)
    if others and missing:
        raise UserError(
            f"REPO must be new, empty or of kind {payload.kind.name}, got {payload.repo_id}, which holds something "
            f"else, such as {others[0]}, and no {missing}; use another name"
        )


@contextmanager
def _in_one_line(payload: Payload) -> Iterator[None]:
    """Turn faults of the Hub into errors that say what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE must not be set for a push; unset it") from error
    except HTTPError as error:
        raise _in_words(payload, error) from error
    except (RuntimeError, ValueError) as error:
        # The client wraps errors of uploads in RuntimeError, and raises ValueError for a rejected card.
        if isinstance(error.__cause__, HTTPError) and not isinstance(error, ValueError):
            raise _in_words(payload, error.__cause__, str(error)) from error
        if isinstance(error, ValueError):
            raise UserError(f"the Hub rejected the push: {' '.join(str(error).split())}") from error
        raise


def _in_words(payload: Payload, error: HTTPError, doing: str = "") -> UserError | HubUnavailable:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    said = getattr(error, "server_message", None) or str(error)
    said = " ".join(said.split())[:300]
    if status == 401:
        return UserError(
            f"the Hub rejected the token ({said}); log in with `hf auth login`, or set HF_TOKEN. Nothing was committed"
        )
    if status == 403 and not doing:
        return UserError(
            f"the token must have write access to {payload.repo_id}, got none ({said}); create one at "
            "https://huggingface.co/settings/tokens. Nothing was committed"
        )
    if status == 412:
        return UserError(
            f"{payload.repo_id} received another commit during the push, and nothing was changed; repeat the command"
        )
    if status in (400, 422):
        return UserError(f"the Hub rejected the push: {said}")
    return HubUnavailable(
        f"the Hub failed ({doing + ' ' if doing else ''}{said}). Nothing was committed; repeat the command, which "
        "skips large files that have arrived"
    )
