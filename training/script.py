"""How the scripts of this folder end: a mistake of the user's is one line, and no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from datasets_script.utils.errors import UserError


def run_script(main: Callable[[], None], interrupted: str = "nothing half-made is kept") -> None:
    """
    Run a script's `main`, and exit with one line where the user made a mistake or pressed Ctrl-C.

    Args:
        main (`Callable[[], None]`): The script.
        interrupted (`str`, *optional*, defaults to `"nothing half-made is kept"`): What Ctrl-C leaves.
    """
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"stopped; {interrupted}")
