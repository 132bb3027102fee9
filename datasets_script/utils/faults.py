"""Turn mistakes and faults into one line and an exit status, in the command line and in worker processes."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import StoppedError, UserError
from .files import DISK_FULL


DONE, NOTHING_MADE, MISTAKE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses of the command line and of worker processes."""

logger = logging.getLogger(__name__)

# `errno` values that are about a path, and what to do about it.
_OF_PATHS = {
    errno.EACCES: "give permission to read and write it, or choose another path",
    errno.EPERM: "give permission to read and write it, or choose another path",
    errno.EROFS: "choose a path on a disk that may be written to",
    errno.ENOENT: "check the path and whether its disk is connected",
    errno.ENOTDIR: "choose a path that does not lead through a file",
    errno.EISDIR: "choose the path of a file",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "choose a path without links in a circle",
}
_NETWORK_DRIVE = "check the network drive"
_LIMIT_OF_FILES = "end programs that keep many files open, or raise the limit (`ulimit -n`)"
# Those that are about the machine, whatever the path.
_OF_MACHINE = {
    errno.EIO: "check the disk and its connection",
    errno.EMFILE: _LIMIT_OF_FILES,
    errno.ENFILE: _LIMIT_OF_FILES,
    errno.ENOMEM: "free memory",
    errno.ESTALE: _NETWORK_DRIVE,
    errno.ENOTCONN: _NETWORK_DRIVE,
    errno.EHOSTDOWN: _NETWORK_DRIVE,
    errno.ETIMEDOUT: _NETWORK_DRIVE,
    errno.ENOLCK: "choose a disk whose file system has locks",
    errno.EADDRINUSE: "end the process that has the port, or choose another port",
}
_OWN_FOLDERS = (Path(__file__).parents[1], Path(sys.prefix))


def guarded(work: Callable[[], int], interrupted: str = "") -> int:
    """
    Call a function and turn mistakes and faults into one line on standard error and an exit status: also paths of the
    user that cannot be read or written, and faults of the machine, such as a full disk or no memory, whose traceback
    is logged for debugging. Every other exception is a bug and keeps its traceback.

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
    except UserError as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return MISTAKE
    except ImportError as error:  # it names the extra to install
        print(f"artiagent: {error}. Run the same command again after that; what was finished is kept", file=sys.stderr)
        return MISTAKE
    except StoppedError as error:
        print(f"artiagent: {error}", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if told := about_path(error):
            logger.debug("where it happened:", exc_info=error)
            print(f"artiagent: {told}", file=sys.stderr)
            return MISTAKE
        advice = "free some space" if error.errno in DISK_FULL else _OF_MACHINE.get(error.errno or 0)
        if advice is None:
            raise
        return _stopped(str(error), advice)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        said = next(iter(str(error).splitlines()), "")
        return _stopped(f"memory ran out{said and ', '}{said}", 'free memory, or ask for less (README, "Your card")')


def _stopped(what: str, advice: str) -> int:
    logger.debug("where it happened:", exc_info=True)
    print(
        f"artiagent: {what}. What was finished is kept; {advice}, and run the same command again to continue",
        file=sys.stderr,
    )
    return STOPPED


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from .memory import is_out_of_memory

    return is_out_of_memory(error)


def about_path(error: OSError) -> str:
    """
    Describe an error about a path of the user: what could not be done, what is kept, and what to do.

    Args:
        error (`OSError`): The error.

    Returns:
        `str`: One line; empty if the error is not about a path, or about one of the installed software.
    """
    advice = _OF_PATHS.get(error.errno or 0)
    if advice is None or not isinstance(error.filename, str | bytes | os.PathLike):
        return ""
    path = Path(os.fsdecode(error.filename))
    if any(path.absolute().is_relative_to(folder) for folder in _OWN_FOLDERS):
        return ""
    return (
        f"'{path}' cannot be {_tried(error.errno or 0, path)}: {error.strerror}. Nothing that was finished before is "
        f"lost; {advice}, and run the same command again"
    )


def _tried(number: int, path: Path) -> str:
    """Tell reading from writing, where the path tells."""
    denied = number in (errno.EACCES, errno.EPERM)
    there = os.path.lexists(path)
    if denied and there and not os.access(path, os.R_OK):
        return "read"
    if number == errno.EROFS or (denied and os.access(path if there else path.parent, os.X_OK | os.R_OK)):
        return "written"
    return "read or written"
