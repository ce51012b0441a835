"""Crash points: before and after each step of a message's way, on real processes."""
