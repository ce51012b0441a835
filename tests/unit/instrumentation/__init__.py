"""Fast tests of the exporters."""
