"""What the tests of several commands use."""

from __future__ import annotations

import pytest

from af10_async.sandbox import Sandbox

from ..conftest import Tls


@pytest.fixture
def environment(sandbox: Sandbox, tls: Tls) -> dict[str, str]:
    return {
        "AF10_BASE_URL": sandbox.base_url,
        "AF10_API_KEY": sandbox.api_key,
        "AF10_USERNAME": sandbox.username,
        "AF10_PASSWORD": sandbox.password,
        "AF10_TLS_CERT": str(tls.cert),
        "AF10_TLS_KEY": str(tls.key),
    }
