"""From a task and a model to a run record: planning, answering, journal and record."""
