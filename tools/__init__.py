"""Small programs for those who work on celery_stargate."""
