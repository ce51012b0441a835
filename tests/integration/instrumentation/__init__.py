"""Instrumentation on a real Redis."""
