"""Training of a memory's own weights on recorded blocks: no text is read in a step."""
