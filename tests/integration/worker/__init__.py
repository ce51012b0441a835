"""The worker's part, on real servers."""
