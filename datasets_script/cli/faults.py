"""Exit statuses and one-line messages for what goes wrong in a command."""

from __future__ import annotations

import argparse
import re

from ..utils import faults
from ..utils.errors import ArgumentError, UserError


# Positional arguments; every other name is an option.
_POSITIONAL = {"source": "SOURCE", "out": "OUT", "prompts": "PROMPTS", "folders": "FOLDER"}


def guarded(args: argparse.Namespace) -> int:
    """Run a parsed command; turn mistakes and faults into one line and an exit status."""

    def work() -> int:
        try:
            return args.run(args)
        except ArgumentError as error:
            raise UserError(in_options(str(error))) from error

    return faults.guarded(work, args.interrupted)


def in_options(message: str) -> str:
    """Replace names of arguments in a message by options of the command line: `` `batch_size` `` by `--batch-size`."""
    return re.sub(r"`([a-z_]+)`", lambda name: _POSITIONAL.get(name[1], f"--{name[1].replace('_', '-')}"), message)
