"""obstore, which speaks to object storage (the extra `storage`): opened, and its errors told."""

from __future__ import annotations

import atexit
import functools
import os
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from types import ModuleType
from typing import Any

from .errors import (
    ConfigurationError,
    DownloadError,
    MissingExtraError,
    StorageError,
    TargetExistsError,
)
from .protocol.redaction import redact
from .protocol.storage_urls import ENVIRONMENTS, StorageTarget

_REQUEST_TIME = "120s"
"""Time of one request: a part must fit on a slow line, together with its neighbours."""
_RETRY_TIME = timedelta(seconds=60)
"""Time after which obstore begins no other attempt at a request."""
_EXIT_PAUSE = 0.05
_CLIENT_OPTIONS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "default_headers",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
"""Options about HTTP, which obstore wants to have apart from those about the store."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
LEFT_PARTS = "performing DELETE"
"""What obstore says when it could not take parts back."""
_METADATA_SERVERS = ("169.254.169.254", "169.254.170.", "metadata.google.internal")
"""Where obstore looks for credentials when it was given none."""


@functools.cache
def load() -> ModuleType:
    """Obstore itself. Raises `MissingExtraError`."""
    try:
        import obstore.store
    except ImportError:
        raise MissingExtraError(
            'object storage needs obstore: pip install "af10-async[storage]"'
        ) from None
    # Its threads let go of Python's objects a moment after the result is here. When the interpreter
    # ends within that moment, the process aborts.
    atexit.register(time.sleep, _EXIT_PAUSE)
    return obstore


def opened(obstore: ModuleType, target: StorageTarget, options: Mapping[str, Any]) -> Any:
    """The store of a target. Raises `ConfigurationError`."""
    given = dict(options)
    config = dict(given.pop("config", None) or {})
    client = _client_options(target.scheme) | dict(given.pop("client_options", None) or {})
    retries = {"retry_timeout": _RETRY_TIME} | dict(given.pop("retry_config", None) or {})
    credentials = given.pop("credential_provider", None)
    config |= given
    client |= {key: config.pop(key) for key in _CLIENT_OPTIONS if key in config}
    try:
        return obstore.store.from_url(
            target.root,
            config=config,
            client_options=client,
            retry_config=retries,
            credential_provider=credentials,
        )
    except Exception as error:
        reason = redact(str(error).partition("\n")[0], _values(target.scheme, config, client))
        raise ConfigurationError(
            f"the options or the environment do not fit {target.root}: {reason}; correct them"
        ) from None


def _client_options(scheme: str) -> dict[str, Any]:
    # obstore looks at none of these variables when it is given any such option.
    begin = ENVIRONMENTS[scheme]
    names = {key: f"{begin}_{key.upper()}" for key in _CLIENT_OPTIONS}
    found = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    return {"timeout": _REQUEST_TIME} | found


def _values(scheme: str, *settings: Mapping[str, Any]) -> list[str]:
    """Whatever may be a secret."""
    begin = f"{ENVIRONMENTS[scheme]}_"
    found = [str(value) for each in settings for value in each.values()]
    return found + [value for name, value in os.environ.items() if name.startswith(begin)]


def store_error(error: Exception, target: StorageTarget, purpose: str = "") -> DownloadError:
    """The error of ours for one of obstore's, whose own text holds addresses and upload ids."""
    text = str(error)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    code = found[1] if (found := _CODE.search(text)) else ""
    if status == 412 or type(error).__name__ == "AlreadyExistsError":
        return exists(target)
    reason, retryable = _reason(status, text)
    answer = f" (HTTP {status}{' ' if code else ''}{code})" if status else ""
    left = ""
    if LEFT_PARTS in text:
        left = (
            "; the parts that were sent could not be taken back: a lifecycle rule of the bucket for"
            " incomplete uploads removes them"
        )
    doing = f"store {target.url}" if not purpose else f"look at {target.url} {purpose}"
    return StorageError(
        f"cannot {doing}{answer}: {reason}{left}",
        status=status,
        code=code,
        step="save",
        retryable=retryable,
    )


def _reason(status: int, text: str) -> tuple[str, bool]:
    """What to do, and whether the same again may help."""
    if any(server in text for server in _METADATA_SERVERS):
        return "there are no credentials: set them in the environment or the options", False
    if status in {401, 403}:
        return (
            "the credentials are wrong or have expired, or do not allow it: renew them, or ask for"
            " the right to do so"
        ), False
    if status == 404:
        return "there is no such bucket: make it, or correct the URL", False
    if status == 501:
        return "it cannot put only where nothing is: pass overwrite=True", False
    if status >= 500 or status in {408, 409, 429}:
        return "the store failed or has too much to do: try again later", True
    if status:
        return "the store refuses the request: check the region and the options", False
    if "builder error" in text:
        return "its endpoint is not https: use https, or the option allow_http", False
    return (
        "the store could not be reached or did not answer in time: check the endpoint and the"
        " region, and try again"
    ), True


def exists(target: StorageTarget) -> TargetExistsError:
    """The error for a target where something is."""
    return TargetExistsError(
        f"cannot store {target.url}: something is there already; choose another key, or pass"
        " overwrite=True to replace it",
        step="save",
    )
