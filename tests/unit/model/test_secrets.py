"""Secrets: what Celery shows of the configuration."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app import utils as celery_utils
from celery.worker import control as celery_control

from celery_stargate import Stargate
from celery_stargate.model.fields import TABLE
from celery_stargate.model.secrets import hide_secrets

#: Celery's types do not have what is used of them.
utils: Any = celery_utils
control: Any = celery_control

#: Each setting that may contain a secret.
SECRETS: dict[str, Any] = {
    "redis_url": "redis://user:s3cr3t@127.0.0.1:1/0",
    "token": "s3cr3t",
}


def shown(app: Celery) -> str:
    """Return all that Celery shows of an app's configuration."""
    inspected = control.conf(SimpleNamespace(app=app))
    return f"{app.bugreport()}\n{json.dumps(inspected, default=repr)}\n{app.conf.humanize()}"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("namespace", [None, "CELERY"])
def test_secrets_are_hidden(name: str, namespace: str | None) -> None:
    """Set before or after the Stargate, in Django's settings too."""
    app = Celery("secret", broker="memory://", set_as_current=False)
    given = {f"stargate_{name}": SECRETS[name], "stargate_lanes": 7}
    if namespace is None:
        Stargate(app)
        app.conf.update(given)
    else:
        module = SimpleNamespace(
            **{f"{namespace}_{key}".upper(): value for key, value in given.items()}
        )
        app.config_from_object(module, namespace=namespace)
        Stargate(app)
    text = shown(app)
    assert "s3cr3t" not in text
    assert re.search(f"stargate_{name}", text, re.IGNORECASE)
    # The others are still shown.
    assert re.search("stargate_lanes\\W+7", text, re.IGNORECASE)


def test_every_text_setting_was_thought_of() -> None:
    """A new setting that takes any text may contain a secret, or is named here."""
    harmless = {"topic", "topics", "prefix", "producer_name", "encryption_keys"}
    harmless |= {"tls_server_name", "metrics_host"}
    free = set()
    for name, setting in TABLE.items():
        try:
            setting.read(name, "s3cr3t")
        except Exception:  # noqa: BLE001  # it takes no such text
            continue
        free.add(name)
    assert free - harmless <= SECRETS.keys()


def test_celerys_own_pattern_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is extended once, however many apps there are."""
    # As it was before any app of this process extended it.
    original = re.compile("API|TOKEN|KEY|SECRET|PASS", re.IGNORECASE)
    monkeypatch.setattr(utils, "HIDDEN_SETTINGS", original)
    hide_secrets()
    assert utils.HIDDEN_SETTINGS is not original
    first = utils.HIDDEN_SETTINGS
    hide_secrets()
    assert utils.HIDDEN_SETTINGS is first
    for name in ("my_password", "MY_API", "my_secret"):
        assert first.search(name)
