"""Run the command line as `python -m datasets_script.cli`."""

import sys

from .main import main


sys.exit(main())
