"""Effects: what follows an outcome. Code that needs Celery begins in this folder."""
