"""Options `-v` and `-q`: how much a command logs while it runs."""

from __future__ import annotations

import argparse
import logging
import os


_PACKAGES = ("datasets_script", "diffusers_artifact", "evaluate_metrics", "hub_cards")
_HANDLER = "artiagent"


def add_verbosity_options(group: argparse._ArgumentGroup) -> None:
    """Add `-v` and `-q`, which may stand before or after the command."""
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "-v",
        "--verbose",
        action="count",
        # No default, so that a value given before the command is kept.
        default=argparse.SUPPRESS,
        help="log information and not only warnings; -vv logs everything",
    )
    choice.add_argument(
        "-q", "--quiet", action="store_true", default=argparse.SUPPRESS, help="hide progress bars and warnings"
    )


def set_verbosity(verbose: int = 0, quiet: bool = False) -> None:
    """
    Configure logging to the standard error, and progress bars.

    Args:
        verbose (`int`, *optional*, defaults to 0): 0 logs warnings, 1 also information, 2 or more everything.
        quiet (`bool`, *optional*, defaults to `False`): Log only errors, and hide progress bars.
    """
    root = logging.getLogger()
    for handler in root.handlers:
        if handler.get_name() == _HANDLER:
            root.removeHandler(handler)
    if not verbose and not quiet:
        return
    level = logging.ERROR if quiet else logging.INFO if verbose == 1 else logging.DEBUG
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER)
    # Set on the handler, not on the loggers, so that warnings still reach the log of a run.
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    if quiet:
        # Libraries read these when they are imported, and worker processes inherit them.
        os.environ.update(TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", DIFFUSERS_VERBOSITY="error")
        os.environ.update(TRANSFORMERS_VERBOSITY="error")
    else:
        for package in _PACKAGES:
            logging.getLogger(package).setLevel(level)
