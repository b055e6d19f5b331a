"""Run the command line: `python -m attrib_core`."""

import sys

from attrib_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
