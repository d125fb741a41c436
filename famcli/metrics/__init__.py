"""Pure scoring functions: text or numbers in, score out."""
