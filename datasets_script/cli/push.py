"""`artiagent push`: models, data sets, metrics and the pipeline to the Hub, with their cards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate_metrics import METRICS

from ..utils.errors import UserError
from .parser import Parser


if TYPE_CHECKING:
    from hub_cards.payload import Kind, Payload


DESCRIPTION = """\
Shows what would be sent and its card, then sends it to the Hub in one commit."""

EPILOG = """\
The token is that of `hf auth login`, or HF_TOKEN. A push is one commit or none: after an interruption the same command
sends what is missing. Only files that belong are sent; a token, a key or a path of this machine in any of them stops
the push.

examples:
  artiagent push model runs/detector me/detector --license apache-2.0 --dry-run    shows files and card, sends nothing
  artiagent push model runs/detector me/detector --license apache-2.0 --private
  artiagent push dataset out me/pairs --license cc-by-4.0            then: load_dataset("me/pairs")
  artiagent push metric miou me/miou                                 then: evaluate.load("me/miou")
  artiagent push pipeline me/artifact-injection                      then: custom_pipeline="me/artifact-injection\""""

_HELP: dict[Kind, str] = {
    "model": "a trained vision-language model or adapter, with training.json",
    "dataset": "a dataset, a folder of `artiagent synthesize` or `artiagent prepare --out`",
    "metric": f"a metric as a Space: {', '.join(METRICS)}",
    "pipeline": "the pipeline's code, for custom_pipeline=",
}
_PATHS: dict[Kind, str] = {
    "model": "folder of the model; its evaluation/*.json, reports of `artiagent evaluate`, go into the card",
    "dataset": "folder of the dataset",
    "metric": "name of the metric, or its folder",
    "pipeline": "folder of the pipeline (default: the installed one)",
}
# Those whose licence depends on what they were made from.
_LICENSED: tuple[Kind, ...] = ("model", "dataset")


def add_arguments(parser: Parser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND", parser_class=Parser)
    for kind, help in _HELP.items():
        command = kinds.add_parser(kind, help=help, description=f"Pushes {help}.", epilog=EPILOG)
        command.add_argument("path", metavar="PATH", nargs="?" if kind == "pipeline" else None, help=_PATHS[kind])
        command.add_argument("repo", metavar="REPO", help="repository as OWNER/NAME; created if it is not there")
        command.add_argument("--private", action="store_true", help="make a new repository private")
        command.add_argument("--dry-run", action="store_true", help="only show what would be sent, without network")
        command.add_argument("--message", help="message of the commit (default: what is pushed)")
        if kind in _LICENSED:
            command.add_argument("--license", help="licence by its Hub identifier, e.g. apache-2.0, cc-by-4.0, other")
    parser.set_defaults(interrupted="nothing was committed; the same command sends what is missing.", license=None)


def run(args: argparse.Namespace) -> int:
    from huggingface_hub import HfApi, get_token

    from hub_cards.push import HubUnavailable, prepare_target, push

    payload = _payload(args)
    print(_listing(payload, args.private), flush=True)
    if args.dry_run:
        print("dry run: nothing was sent")
        return 0
    if get_token() is None:
        raise UserError("there is no token: log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        target = prepare_target(api, payload, args.private)
        state = "created" if target.is_new else "is there, of the same kind: a commit on top"
        print(f"{payload.repo_id} {state}", flush=True)
        for path in target.deleted:
            print(f"  {path} is no longer part of it and will be deleted there", flush=True)
        pushed = push(api, payload, target, args.message or f"Push {payload.kind} with artiagent")
    except HubUnavailable as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 3
    print(f"{pushed.url} is at commit {pushed.commit}{'' if pushed.is_changed else ', unchanged: all was there'}")
    return 0


def _payload(args: argparse.Namespace) -> Payload:
    from evaluate_metrics import metric_path
    from hub_cards.dataset import dataset_payload
    from hub_cards.metric import metric_payload
    from hub_cards.model import model_payload
    from hub_cards.pipeline import installed_pipeline, pipeline_payload
    from hub_cards.push import check_repo_id

    repo_id = check_repo_id(args.repo)
    match args.kind:
        case "model":
            return model_payload(Path(args.path), repo_id, args.license)
        case "dataset":
            return dataset_payload(Path(args.path), repo_id, args.license)
        case "metric":
            return metric_payload(Path(metric_path(args.path) if args.path in METRICS else args.path), repo_id)
        case _:
            return pipeline_payload(Path(args.path) if args.path else installed_pipeline(), repo_id)


def _listing(payload: Payload, private: bool) -> str:
    seen = "private" if private else "public"
    lines = [f"{payload.kind} to {payload.repo_id} ({payload.repo_type} repository, {seen} if it is new):"]
    width = max(len(file.path) for file in payload.files)
    lines += [f"  {file.path:<{width}}  {_size(file.size):>9}" for file in payload.files]
    lines.append(f"{len(payload.files)} files, {_size(payload.size)}")
    if payload.left_out:
        lines.append(f"left out, not part of a {payload.kind}'s repository: {', '.join(payload.left_out)}")
    return "\n".join([*lines, "", "README.md:", "", *(f"  {line}".rstrip() for line in payload.card.splitlines()), ""])


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    power = min((len(str(size)) - 1) // 3, 3)
    return f"{size / 1000**power:.1f} {' kMG'[power]}B"
