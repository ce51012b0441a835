"""Faults on real servers, with a ledger and a checker: `python -m tests.faults --all`."""
