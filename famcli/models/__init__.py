"""The network: decoders that read a stream."""
