"""What is slow in a well-kept dependency: minimal cases, each run by itself or all together."""
