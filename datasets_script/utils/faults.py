"""Turn what goes wrong into one line and an exit status, in the command line and in worker processes alike."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from .errors import StoppedError, UserError
from .files import DISK_FULL


DONE, NOTHING_MADE, MISTAKE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses of the command line and of worker processes."""


def guarded(work: Callable[[], int], interrupted: str = "") -> int:
    """
    Call a function and turn mistakes and faults into one line on the standard error and an exit status. Everything
    else is a bug and keeps its traceback.

    Args:
        work (`Callable[[], int]`): Returns its own exit status.
        interrupted (`str`, *optional*): What is said after Ctrl-C; nothing if empty.

    Returns:
        `int`: What `work` returned, or `MISTAKE` (a mistake of the user's), `STOPPED` (stopped by what it depends on,
        can be continued) or `INTERRUPTED` (Ctrl-C).
    """
    try:
        return work()
    except KeyboardInterrupt:
        if interrupted:
            print(f"\nInterrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except (UserError, ImportError) as error:  # a package that is not installed, which the message names
        print(f"artiagent: {error}", file=sys.stderr)
        return MISTAKE
    except StoppedError as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(
            f"artiagent: writing failed, {error}. Finished shards are whole; free some space, and the same command "
            "continues.",
            file=sys.stderr,
        )
        return STOPPED
