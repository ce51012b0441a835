"""Real Redis and real Pulsar, in this process: threads, and no Celery worker."""
