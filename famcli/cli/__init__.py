"""The command line: one file a verb, wired in ``main``."""
