"""Turn what goes wrong into one line and an exit status."""

from __future__ import annotations

import argparse
import os
import sys

from diffusers.utils import logging as diffusers_logging

from ..agents.curation.perceptual import PerceptualMetricUnavailable
from ..agents.perception import (
    PerceptionError,
    PerceptionModelError,
)
from ..benchmarks.base import BenchmarkError
from ..engine.injector import ModelLoadError
from ..engine.locks import RunBusyError
from ..engine.run import RunAborted
from ..engine.shards import RunMismatchError
from ..utils.errors import UserError
from ..utils.files import DISK_FULL
from ..utils.photos import SourceError
from ..vlm import VLMUnavailable


MISTAKES = (
    UserError,
    SourceError,
    BenchmarkError,
    RunMismatchError,
    RunBusyError,
    PerceptionError,
    PerceptionModelError,
    ModelLoadError,
    PerceptualMetricUnavailable,
    ImportError,
)


def guarded(args: argparse.Namespace) -> int:
    """Carries out a parsed command; mistakes and faults become one line and an exit status."""
    diffusers_logging.disable_progress_bar()
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print(f"\nInterrupted: {args.interrupted}", file=sys.stderr)
        return 130
    except MISTAKES as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 2
    except (RunAborted, VLMUnavailable) as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return 3
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(
            f"artiagent: writing failed, {error}. Finished shards are whole; free some space, and the same command "
            "continues.",
            file=sys.stderr,
        )
        return 3
