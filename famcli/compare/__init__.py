"""What runs say about each other: which may be compared, side by side, and their differences sample by sample."""
