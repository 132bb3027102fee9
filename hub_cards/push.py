"""Sending a payload to the Hub: one commit, or none."""

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

from .payload import CARD, Payload, is_allowed


_NOT_OURS = (".gitattributes", CARD)


class HubUnavailable(Exception):
    """The Hub failed or cannot be reached; the same push can be tried again."""


@dataclass(frozen=True)
class Target:
    """
    The repository as it was before a push.

    Attributes:
        commit (`str`): Its latest.
        is_new (`bool`): Whether the push created it.
        deleted (`tuple[str, ...]`): Files there that the payload no longer has, such as shards of an earlier state.
    """

    commit: str
    is_new: bool
    deleted: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """Where a push ended: the address of the repository, its commit, and whether that is a new one."""

    url: str
    commit: str
    is_changed: bool


def check_repo_id(repo_id: str) -> str:
    """
    Raises:
        UserError: it is not `owner/name`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"REPO must be OWNER/NAME: {error}") from error
    if repo_id.count("/") != 1:
        raise UserError(f"REPO must be OWNER/NAME, a user or organisation and a name, got '{repo_id}'")
    return repo_id


def prepare_target(api: HfApi, payload: Payload, private: bool) -> Target:
    """
    Finds the repository, or creates it.

    Args:
        api (`HfApi`): A client.
        payload (`Payload`): What is to be sent.
        private (`bool`): Whether a new repository is to be private.

    Raises:
        UserError: the token may not, or the repository is of something else or public.
        HubUnavailable: the Hub cannot be had.
    """
    with _in_one_line(payload):
        return _find_or_create(api, payload, private)


def push(api: HfApi, payload: Payload, target: Target, message: str) -> Pushed:
    """
    Makes one commit of a payload on top of `target.commit`, and nothing if that is no longer the latest.

    It is `create_commit` and not `upload_folder`, which with Xet splits a large folder into several commits. Blobs are
    uploaded before the commit; where it fails, those that have arrived are not sent again.

    Args:
        api (`HfApi`): A client.
        payload (`Payload`): What is sent.
        target (`Target`): From [`prepare_target`].
        message (`str`): Of the commit.

    Raises:
        UserError: the token may not, the repository has changed meanwhile, or the Hub refuses the card.
        HubUnavailable: the Hub cannot be had.
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
    # A token that is refused looks like a repository that is not there, so it is tried first.
    api.whoami()
    try:
        info = api.repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        # None is the account's own default.
        api.create_repo(repo_id, repo_type=repo_type, private=private or None, space_sdk=payload.kind.space_sdk)
        return Target(str(api.repo_info(repo_id, repo_type=repo_type).sha), True, ())
    if private and not info.private:
        raise UserError(f"--private is for new repositories, but {repo_id} is there and public")
    there = api.list_repo_files(repo_id, repo_type=repo_type, revision=info.sha)
    _check_same_kind(payload, there)
    sent = {file.path for file in payload.files}
    gone = [path for path in there if path not in sent and is_allowed(payload.kind, path)]
    return Target(str(info.sha), False, tuple(sorted(gone)))


def _check_same_kind(payload: Payload, there: Sequence[str]) -> None:
    others = [path for path in there if path not in _NOT_OURS]
    if others and not any(is_allowed(payload.kind, path) for path in others):
        raise UserError(
            f"REPO must be new, empty or of a {payload.kind.name}, but {payload.repo_id} holds something else, such "
            f"as {others[0]}"
        )


@contextmanager
def _in_one_line(payload: Payload) -> Iterator[None]:
    """Faults of the Hub become messages that say what to do."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set, which forbids what a push needs: unset it") from error
    except HTTPError as error:
        raise _in_words(payload, error) from error
    except (RuntimeError, ValueError) as error:
        # An upload's error is the cause of another; a refused card is a ValueError.
        if isinstance(error.__cause__, HTTPError) and not isinstance(error, ValueError):
            raise _in_words(payload, error.__cause__, str(error)) from error
        if isinstance(error, ValueError):
            raise UserError(f"the Hub refuses the push: {' '.join(str(error).split())}") from error
        raise


def _in_words(payload: Payload, error: HTTPError, doing: str = "") -> UserError | HubUnavailable:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    said = getattr(error, "server_message", None) or str(error)
    said = " ".join(said.split())[:300]
    if status == 401:
        return UserError(f"the Hub does not accept the token ({said}): log in with `hf auth login`, or set HF_TOKEN")
    if status == 403 and not doing:
        return UserError(
            f"the token may not write to {payload.repo_id} ({said}): make one with write access to it at "
            "https://huggingface.co/settings/tokens"
        )
    if status == 412:
        return UserError(
            f"{payload.repo_id} got another commit meanwhile, nothing was changed: the same command goes on top of it"
        )
    if status in (400, 422):
        return UserError(f"the Hub refuses the push: {said}")
    return HubUnavailable(
        f"the Hub failed ({doing + ' ' if doing else ''}{said}). Nothing was committed; the same command tries again, "
        "and does not send again the large files that have arrived"
    )
