"""How fast Django's outbox is: `python -m benchmarks.outbox`."""
