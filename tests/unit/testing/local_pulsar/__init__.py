"""Tests of the folder of this name in celery_stargate."""
