"""Several workers answer one run: actors of Ray, on this machine or on a cluster.

The driver keeps the plan, the journal and the record, and is the only one who writes them. A worker gets what is read
together in one message, and sends answers back batch by batch. So the record of a run does not depend on who answered
it, apart from times and memory.
"""
