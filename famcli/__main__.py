"""``python -m famcli``, as launchers of several processes call it: ``accelerate launch -m famcli train``."""

from __future__ import annotations

import sys

from famcli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
