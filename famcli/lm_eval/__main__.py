"""The program of lm-evaluation-harness, which knows the model ``famcli``: it looks for models of others nowhere."""

from __future__ import annotations

import os
import sys

# Spinning OpenMP threads slow a busy machine down more than tenfold; it must be said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from famcli.display import visible
from famcli.errors import UserError


def main() -> int:
    """Runs the harness; returns 2 for what the user can put right."""
    try:
        try:
            from lm_eval.__main__ import cli_evaluate
        except ImportError as error:
            raise UserError("lm-evaluation-harness is not installed", "pip install 'famcli[lm-eval]'") from error
        import famcli.lm_eval.model  # noqa: F401  # it makes itself known

        cli_evaluate()
    except UserError as error:
        print(visible(f"error: {error.message}"), file=sys.stderr)
        if error.hint:
            print(visible(f"hint: {error.hint}"), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
