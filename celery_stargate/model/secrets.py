"""Keep secrets in settings out of what Celery shows of its configuration."""

from __future__ import annotations

import re
from typing import Any

from celery.app import utils as celery_utils

__all__ = ["hide_secrets"]

#: The Redis URL may contain a password. Celery hides settings whose names contain TOKEN, KEY or
#: PASS itself, so ``stargate_token``, ``stargate_tls_key`` and passwords in mappings too, and it
#: hides the password in ``broker_url`` and in names with BACKEND.
_HIDDEN = "STARGATE_REDIS_URL"


def hide_secrets() -> None:
    """Let ``celery report``, ``inspect conf`` and ``inspect report`` hide our secrets.

    Celery has no setting for this; it hides what a pattern of ``celery.app.utils`` matches.
    """
    # Celery's types do not have it.
    utils: Any = celery_utils
    pattern: re.Pattern[str] = utils.HIDDEN_SETTINGS
    if _HIDDEN not in pattern.pattern:
        utils.HIDDEN_SETTINGS = re.compile(f"{pattern.pattern}|{_HIDDEN}", pattern.flags)
