"""Where Celery's worker meets the lanes."""
