"""Integrations with frameworks; nothing else of the package imports them."""
