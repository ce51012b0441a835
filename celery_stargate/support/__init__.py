"""Small tools that know nothing of Pulsar, Redis or Celery."""
