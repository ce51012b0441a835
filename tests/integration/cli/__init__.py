"""The commands, on real servers."""
