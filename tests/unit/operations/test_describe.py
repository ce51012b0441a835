"""A report has no secret in it."""

from __future__ import annotations

import pytest

from celery_stargate.operations.describe import masked_url


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:word@host:1/0", "redis://:********@host:1/0"),
        ("rediss://shop:w@rd@host/0?x=1", "rediss://shop:********@host/0?x=1"),
        ("redis://[broken", "********"),
        ("redis://host/0?password=word&x=1", "redis://host/0?password=********&x=1"),
        ("db+mysql://u:w@h/d?a=1&Passwd=w", "db+mysql://u:********@h/d?a=1&Passwd=********"),
        ("None", "None"),
    ],
)
def test_masks_a_password(url: str, masked: str) -> None:
    assert masked_url(url) == masked
