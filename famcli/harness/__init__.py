"""Tasks of lm-evaluation-harness as tasks of famcli."""
