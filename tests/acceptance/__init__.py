"""Real worker processes, real servers, signals and `kill -9`."""
