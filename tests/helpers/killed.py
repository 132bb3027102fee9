"""A child process that a test kills."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def kill_once(ready: Callable[[], Any], target: Callable[..., Any], *arguments: Any) -> int | None:
    """
    Call a function in a forked child, kill it as soon as `ready` is true, and return its exit code.

    Args:
        ready (`Callable`): Says whether the child has come far enough.
        target (`Callable`): Function to call.
        arguments: Its arguments.
    """
    child = multiprocessing.get_context("fork").Process(target=_with_own_lock, args=(target, *arguments))
    child.start()
    while child.is_alive() and not ready():
        time.sleep(0.002)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode


def _with_own_lock(target: Callable[..., Any], *arguments: Any) -> None:
    # The lock of progress bars is shared with the parent, which would wait for ever for a child that died holding it.
    tqdm.set_lock(threading.RLock())
    target(*arguments)
