"""Rivals side by side, in one run on the same servers: `python -m benchmarks`. See its README."""
