"""The pure core: bytes and integers in, values out; no clock, randomness, files or tasks."""
