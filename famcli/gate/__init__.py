"""The regression check: runs against a baseline."""
