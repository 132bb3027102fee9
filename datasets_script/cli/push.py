"""`artiagent push`: publish models, datasets, metrics and the pipeline on the Hub, with their cards."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from hub_cards.kinds import KINDS, find_kind

from ..utils.errors import UserError
from .parser import Parser


if TYPE_CHECKING:
    from hub_cards.payload import Payload


DESCRIPTION = """\
List the files and show the card, then upload them to the Hub in one commit. With --dry-run, nothing is uploaded."""

EPILOG = """\
Log in with `hf auth login`, or set HF_TOKEN. A push makes one commit or none; if it is interrupted, rerun the command
to upload what is missing. Only files that belong to such a repository are uploaded. The push stops if any of them
holds a token, a key or a path of this machine.

examples:
{examples}""".format(examples="\n".join(f"  artiagent push {line}" for kind in KINDS for line in kind.examples))


def add_arguments(parser: Parser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=Parser)
    for kind in KINDS:
        command = kinds.add_parser(kind.name, help=kind.help, description=f"Push {kind.help}.", epilog=EPILOG)
        command.add_argument("path", metavar="PATH", nargs=None if kind.needs_path else "?", help=kind.path_help)
        command.add_argument("repo", metavar="REPO", help="repository as OWNER/NAME; created if it does not exist")
        command.add_argument("--private", action="store_true", help="make a new repository private")
        command.add_argument("--dry-run", action="store_true", help="only show what would be uploaded, offline")
        command.add_argument("--message", help="commit message (default: names what is pushed)")
        for option in kind.options:
            command.add_argument(f"--{option.name}", help=option.help)
    parser.set_defaults(interrupted="nothing was committed; rerun the command to upload what is missing.")


def run(args: argparse.Namespace) -> int:
    from huggingface_hub import HfApi, get_token

    from hub_cards.push import HubUnavailable, prepare_target, push

    payload = _payload(args)
    print(_listing(payload, args.private), flush=True)
    if args.dry_run:
        print("dry run: nothing was uploaded")
        return 0
    if get_token() is None:
        raise UserError(
            "HF_TOKEN must be set, or a token saved by `hf auth login`, found neither; run the same command again "
            "after that. Nothing was sent"
        )
    api = HfApi()
    try:
        target = prepare_target(api, payload, args.private)
        state = "created" if target.is_new else "exists; adding a commit to it"
        print(f"{payload.repo_id} {state}", flush=True)
        for path in target.deleted:
            print(f"  {path} is no longer part of it and will be deleted from the repository", flush=True)
        pushed = push(api, payload, target, args.message or f"Push {payload.kind.name} with artiagent")
    except HubUnavailable as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 3
    print(f"{pushed.url} is at commit {pushed.commit}{'' if pushed.is_changed else ', unchanged: already up to date'}")
    return 0


def _payload(args: argparse.Namespace) -> Payload:
    from hub_cards.push import check_repo_id

    kind = find_kind(args.kind)
    values = {option.name: getattr(args, option.name) for option in kind.options}
    return kind.build(kind.find_folder(args.path), check_repo_id(args.repo), **values)


def _listing(payload: Payload, private: bool) -> str:
    seen = "private" if private else "public"
    lines = [f"{payload.kind.name} to {payload.repo_id} ({payload.repo_type} repository, {seen} if new):"]
    width = max(len(file.path) for file in payload.files)
    lines += [f"  {file.path:<{width}}  {_size(file.size):>9}" for file in payload.files]
    lines.append(f"{len(payload.files)} files, {_size(payload.size)}")
    if payload.left_out:
        lines.append(f"not uploaded, as not part of a {payload.kind.name} repository: {', '.join(payload.left_out)}")
    return "\n".join([*lines, "", "README.md:", "", *(f"  {line}".rstrip() for line in payload.card.splitlines()), ""])


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:.1f} {' kMG'[power]}B"
