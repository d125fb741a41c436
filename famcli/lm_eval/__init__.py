"""Models of famcli for lm-evaluation-harness: ``python -m famcli.lm_eval`` is its program with ``--model famcli``."""
