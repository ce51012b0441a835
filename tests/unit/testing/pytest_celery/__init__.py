"""Tests of ``celery_stargate.testing.pytest_celery``: its parts that need no container."""
