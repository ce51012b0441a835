"""Tokens as a callable of `stargate_token` may return them."""

from __future__ import annotations

from typing import Any

import pytest

from celery_stargate import ConfigurationError
from celery_stargate.model.fields import bearer
from celery_stargate.model.settings import Settings


def test_the_word_bearer_may_be_before_it() -> None:
    assert bearer("t", "Bearer a.b") == bearer("t", "a.b") == "a.b"


@pytest.mark.parametrize("token", [None, "", "a.b\n", " a.b", "a b", "a\x00b", "Bearer ", "tökén"])
def test_what_is_no_token(token: Any) -> None:
    """Is not in the text."""
    with pytest.raises(ConfigurationError, match="^the token ") as caught:
        bearer("the token", token)
    if token:
        assert token not in str(caught.value)


def test_a_callable_is_kept_as_it_is() -> None:
    """It is called for each connection."""

    def token() -> str:
        raise AssertionError("it is not called when the settings are read")

    assert Settings.read({"stargate_token": token}).token is token
