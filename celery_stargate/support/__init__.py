"""Small tools that do not know Pulsar, Redis or Celery."""
