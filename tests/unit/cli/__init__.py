"""Fast tests of the commands."""
