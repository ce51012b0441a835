"""Exporters: they read what the core keeps; the core imports none of them."""
