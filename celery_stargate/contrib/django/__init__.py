"""Django: a transactional outbox that Pulsar's receipt closes, an inbox, checks and an admin.

Add ``"celery_stargate.contrib.django"`` to ``INSTALLED_APPS``, run ``migrate``, and write events
with :mod:`celery_stargate.contrib.django.outbox`.
"""
