"""The lanes' scripts against a real Redis."""
