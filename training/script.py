"""Entry point of the scripts: a user's mistake ends in one line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from datasets_script.utils.errors import StoppedError, UserError


def run_script(main: Callable[[], None], interrupted: str = "nothing half-made is kept") -> None:
    """
    Run a script's `main`, and exit with one line if the user made a mistake or pressed Ctrl-C, or if something that it
    depends on failed.

    Args:
        main (`Callable[[], None]`): Function to run.
        interrupted (`str`, *optional*, defaults to `"nothing half-made is kept"`): What to print after Ctrl-C:
            the state that the script leaves behind.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except StoppedError as error:
        sys.exit(f"stopped: {error}")
    except KeyboardInterrupt:
        sys.exit(f"stopped; {interrupted}")
