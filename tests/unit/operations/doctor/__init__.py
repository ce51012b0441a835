"""Fast tests of what the doctor judges."""
