"""What only newer versions of Pulsar do."""

from __future__ import annotations

import pytest

from tests.servers.pulsar import VERSION

__all__ = ["SINCE_4"]

#: Version 3.0 ignores ``subscriptionInitialPosition``, and reads the limits of a batch without one.
#: The package asks for neither.
SINCE_4 = pytest.mark.skipif(
    VERSION.startswith("3."), reason=f"Pulsar {VERSION} does this in another way"
)
