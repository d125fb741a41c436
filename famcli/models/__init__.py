"""Decoders that read a stream, and where their weights come from."""
