"""Benchmarks of multiple choice and numbers, with pictures inside the files or videos beside them."""
