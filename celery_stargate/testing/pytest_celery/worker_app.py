"""The Celery app of a worker's container.

pytest-celery copies this file there as ``app.py``. It replaces the lines ``imports = None``,
``app = …`` and ``config = None``: they must stay as they are.
"""

from __future__ import annotations

import os

from celery import Celery

from celery_stargate import Stargate

imports = None

app = Celery("celery_test_app")
config = None

if config:
    app.config_from_object(config)

if "STARGATE_URL" in os.environ:
    # The settings come from the app in the test's process, which knows Pulsar by another address.
    app.conf.stargate_url = os.environ["STARGATE_URL"]

Stargate(app)

if __name__ == "__main__":
    app.start()
