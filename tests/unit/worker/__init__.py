"""Fast tests of what runs in a worker."""
