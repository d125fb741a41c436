"""What this machine has and does: memory that is taken and memory that is free, products and bytes in a second."""
