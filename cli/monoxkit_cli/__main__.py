"""Runs the command line as `python -m monoxkit_cli`."""

import sys

from monoxkit_cli.app import main

sys.exit(main())
