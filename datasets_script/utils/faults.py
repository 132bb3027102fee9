"""Turn mistakes and faults into one line and an exit status, in the command line and in worker processes."""

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
    Call a function and turn mistakes and faults into one line on standard error and an exit status. Every other
    exception is a bug and keeps its traceback.

    Args:
        work (`Callable[[], int]`): Returns its own exit status.
        interrupted (`str`, *optional*, defaults to `""`): Message after Ctrl-C; nothing is printed if empty.

    Returns:
        `int`: What `work` returned, or `MISTAKE` (user error), `STOPPED` (can be continued) or `INTERRUPTED` (Ctrl-C).
    """
    try:
        return work()
    except KeyboardInterrupt:
        if interrupted:
            print(f"\nInterrupted: {interrupted}", file=sys.stderr)
        return INTERRUPTED
    except (UserError, ImportError) as error:  # an ImportError names the extra to install
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
            f"artiagent: writing failed, {error}. Finished shards are complete; free some space and run the same "
            "command again to continue.",
            file=sys.stderr,
        )
        return STOPPED
