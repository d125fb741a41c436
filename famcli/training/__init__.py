"""Training and fine-tuning with memory carried from block to block and from step to step."""
