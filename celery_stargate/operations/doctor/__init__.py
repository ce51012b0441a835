"""``doctor``: what is set up wrongly, why it matters, and the line that mends it.

Each module has two halves: one gathers facts from a server, the other is a table of checks that
judge these facts without any I/O.
"""
