"""Losses, collators and `Trainer` subclasses for geometry-aligned pre-training."""
