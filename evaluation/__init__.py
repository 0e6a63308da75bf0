"""Metrics, baselines and plots for 3D answers."""
