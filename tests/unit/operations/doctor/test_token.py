"""A token's claims are read; the token itself is never told."""

from __future__ import annotations

import time

import pytest

from celery_stargate.operations.doctor.token import TokenFacts, read_token
from tests.servers.credentials import make_token


def test_reads_expiry_and_role() -> None:
    token = make_token(b"x" * 32, "shop", 3600)
    found = read_token(token)
    assert found.role == "shop"
    assert found.expires == pytest.approx(time.time() + 3600, abs=5)
    assert all(part not in repr(found) for part in token.split("."))


def test_a_token_may_have_no_expiry() -> None:
    assert read_token(make_token(b"x" * 32, "shop")) == TokenFacts(is_jwt=True, role="shop")


@pytest.mark.parametrize("token", ["", "secret", "a.b", "a.b.c", "a.%%.c", "a.bm8.c", "é.é.é"])
def test_another_kind_of_token_is_left_alone(token: str) -> None:
    assert read_token(token) == TokenFacts(is_jwt=False)
