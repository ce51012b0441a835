"""The ``celery stargate`` commands: they parse and print; ``operations`` does the work."""
