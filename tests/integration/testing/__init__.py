"""Tests of ``celery_stargate.testing`` on real servers."""
