"""What reading costs, length by length: each model in a process of its own, so that its figures are its own."""
