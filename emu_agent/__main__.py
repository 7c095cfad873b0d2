"""`python -m emu_agent` is the command `emu-agent`."""

import sys

from emu_agent.cli import main

sys.exit(main())
