"""One HTML page about runs, complete in one file."""
