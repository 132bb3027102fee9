"""Turn what goes wrong in a command into one line and an exit status."""

from __future__ import annotations

import argparse
import re

from ..utils import faults
from ..utils.errors import ArgumentError, UserError


# Arguments that are no options; those of every other name are.
_POSITIONAL = {"source": "SOURCE", "out": "OUT"}


def guarded(args: argparse.Namespace) -> int:
    """Carry out a parsed command; mistakes and faults become one line and an exit status."""

    def work() -> int:
        try:
            return args.run(args)
        except ArgumentError as error:
            raise UserError(in_options(str(error))) from error

    return faults.guarded(work, args.interrupted)


def in_options(message: str) -> str:
    """Name the options of the command line where a message names arguments: `` `batch_size` `` is `--batch-size`."""
    return re.sub(r"`([a-z_]+)`", lambda name: _POSITIONAL.get(name[1], f"--{name[1].replace('_', '-')}"), message)
