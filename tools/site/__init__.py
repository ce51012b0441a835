"""Build the documentation site from docs/ and check it: ``python -m tools.site``."""
