"""What users configure, from keyword arguments or from `AF10_*` variables.

Both ways end in the same `Settings`; the first problem becomes a `ConfigurationError` that names
the argument or variable and says what it expects, and never repeats the value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    SecretStr,
    ValidationError,
    create_model,
)

from .errors import ConfigurationError
from .protocol.addresses import is_private_host
from .protocol.public_url import EXPECTED as PUBLIC_URL_EXPECTED
from .protocol.public_url import Tunnel, read_public_url
from .public_url.base import PublicURL
from .setting_values import (
    CallbackSecret,
    FixedUrl,
    HeaderSecret,
    HttpUrl,
    Name,
    Proxies,
    PublicUrl,
    ReadableFile,
    Secret,
    StoreUrl,
)

_SECRETS = ("api_key", "username", "password", "callback_secret", "store")


_PROXIES_EXPECTED = "addresses or networks of proxies, such as 127.0.0.1,10.0.0.0/8"
_SIGNER_EXPECTED = "at least 16 characters that nobody can guess, the same on every replica"


def _expected(text: str, **extra: Any) -> Any:
    return Field(description=text, **extra)


class StoreSettings(BaseModel):
    """Where the jobs are kept; and how every kind of settings is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    store: StoreUrl = _expected(
        "memory:, sqlite:PATH, redis://… or valkey://… (with TLS: rediss://…, valkeys://…)",
        default=SecretStr("memory:"),
    )

    @classmethod
    def from_arguments(cls, *, without: Collection[str] = (), **arguments: Any) -> Self:
        """Settings from keyword arguments, but for those that are named in `without`.

        `ConfigurationError` names the argument.
        """
        given = {name: value for name, value in arguments.items() if name not in without}
        return cls._validated(given, lambda name: name)

    @classmethod
    def from_env(cls, *, without: Collection[str] = (), **arguments: Any) -> Self:
        """Settings from `AF10_*` variables, over which keyword arguments win.

        Each secret may also be given as `..._FILE`, a file that holds it. Settings named in
        `without` are left as they are, whatever is given for them.
        """
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None and name not in without
        }
        fields = [name for name in cls.model_fields if name not in without]
        values = _read_environment(fields, except_for=given) | given
        return cls._validated(values, variable_name)

    @classmethod
    def _validated(cls, values: Mapping[str, Any], naming: Callable[[str], str]) -> Self:
        given = {name: value for name, value in values.items() if value is not None}
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise _configuration_error(cls, problem, naming) from None
        settings._check_together(naming)
        return settings

    def _check_together(self, naming: Callable[[str], str]) -> None:
        """Raise `ConfigurationError` when values do not go together."""


class MountedSettings(StoreSettings):
    """The configuration of a receiver inside somebody's app."""

    public_url: FixedUrl = _expected(
        "the https address of what the receiver is mounted at, without a query, such as"
        " https://www.example.com/webhooks"
    )
    trusted_proxies: Proxies = _expected(_PROXIES_EXPECTED, default=())
    callback_secret: CallbackSecret | None = _expected(_SIGNER_EXPECTED, default=None)

    def receiver_arguments(self) -> dict[str, Any]:
        """What a `CallbackReceiver` with these settings is made with."""
        secret = self.callback_secret
        return {
            "public_url": self.public_url,
            "store": self.store.get_secret_value(),
            "callback_secret": secret.get_secret_value() if secret else None,
            "trusted_proxies": self.trusted_proxies,
        }


class ReceiverSettings(StoreSettings):
    """The configuration of a callback server."""

    public_url: PublicUrl | InstanceOf[PublicURL] | None = _expected(
        PUBLIC_URL_EXPECTED, default=None
    )
    listen_host: Name = _expected(
        "the address the callback server binds, such as 127.0.0.1 or 0.0.0.0", default="127.0.0.1"
    )
    listen_port: Annotated[int, Field(ge=0, le=65535)] | None = _expected(
        "a port number from 0 (any free one) to 65535", default=None
    )
    tls_cert: ReadableFile | None = _expected(
        "the path of a readable PEM file with the certificate chain", default=None
    )
    tls_key: ReadableFile | None = _expected(
        "the path of a readable PEM file with the private key", default=None
    )
    ca_file: ReadableFile | None = _expected(
        "the path of a readable PEM file with certificates to trust beside the usual ones",
        default=None,
    )
    trusted_proxies: Proxies = _expected(_PROXIES_EXPECTED, default=())
    callback_secret: CallbackSecret | None = _expected(_SIGNER_EXPECTED, default=None)

    @property
    def tunnel(self) -> Tunnel | None:
        """The tunnel that is named as the public address, if one is."""
        found = self._read_public_url()
        return found if isinstance(found, Tunnel) else None

    @property
    def fixed_url(self) -> str | None:
        """The public address, where it is known before anything is opened."""
        found = self._read_public_url()
        return found if isinstance(found, str) else None

    def _read_public_url(self) -> str | Tunnel | None:
        """None also for a way to here that knows its address by itself."""
        return read_public_url(self.public_url) if isinstance(self.public_url, str) else None

    @property
    def needs_known_port(self) -> bool:
        """Whether the public address leads to a port that was chosen beforehand."""
        tunnel = self.tunnel
        if tunnel is not None:
            # Its rules are at Cloudflare, and name the port.
            return tunnel.kind == "cloudflared" and tunnel.host is not None and not tunnel.tunnel
        return self.fixed_url is not None

    def server_arguments(self) -> dict[str, Any]:
        """What a `CallbackServer` with these settings is made with."""
        secret = self.callback_secret
        return {
            "host": self.listen_host,
            "port": self.listen_port or 0,
            "public_url": self.public_url,
            "tls_cert": self.tls_cert,
            "tls_key": self.tls_key,
            "store": self.store.get_secret_value(),
            "callback_secret": secret.get_secret_value() if secret else None,
            "trusted_proxies": self.trusted_proxies,
            "ca_file": self.ca_file,
        }

    def _check_together(self, naming: Callable[[str], str]) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, there = ("tls_key", "tls_cert") if self.tls_cert else ("tls_cert", "tls_key")
            raise ConfigurationError(
                f"{naming(there)} is set but {naming(missing)} is not: TLS needs both"
            )


OF_THE_SERVER = frozenset(ReceiverSettings.model_fields) - {"ca_file"}
"""What whoever brings a callback server of their own has decided already."""


class ServerSettings(ReceiverSettings):
    """The configuration of a callback server that is made for itself."""

    def _check_together(self, naming: Callable[[str], str]) -> None:
        super()._check_together(naming)
        if self.needs_known_port and self.listen_port is None:
            raise ConfigurationError(
                f"{naming('public_url')} is set but {naming('listen_port')} is not: callbacks must"
                " arrive at a known port; set it to the one that the public address leads to"
            )


class ConnectionSettings(ReceiverSettings):
    """The configuration of what clients of several accounts may share."""

    @property
    def receives_elsewhere(self) -> bool:
        """Whether another process over the same store receives the callbacks.

        That is so when the public address is known, but neither a port nor a certificate is given
        for listening here.
        """
        listens = self.listen_port is not None or self.tls_cert is not None
        is_shared = self.store.get_secret_value() != "memory:"
        return self.fixed_url is not None and not listens and is_shared

    def _check_together(self, naming: Callable[[str], str]) -> None:
        super()._check_together(naming)
        if not self.needs_known_port:
            return
        if self.listen_port is None and not self.receives_elsewhere:
            raise ConfigurationError(
                f"{naming('public_url')} is set but {naming('listen_port')} is not: callbacks must"
                " arrive at a known port; set it to the one that the public address leads to; or"
                f" share a {naming('store')} with another process that receives them"
            )


class Settings(ConnectionSettings):
    """The configuration of one client."""

    base_url: HttpUrl = _expected(
        "the address of AF10's API, such as https://api.autoflex10.work/v2"
    )
    api_key: HeaderSecret = _expected("the API key from AF10, visible ASCII without spaces")
    username: Secret = _expected("the AF10 user name")
    password: Secret = _expected("the AF10 password")
    organization_name: Name | None = _expected("the AF10 organization's name", default=None)

    def _check_together(self, naming: Callable[[str], str]) -> None:
        super()._check_together(naming)
        if self.fixed_url is None:
            return
        host, api_host = urlsplit(self.fixed_url).hostname, urlsplit(self.base_url).hostname
        if is_private_host(host or "") and not is_private_host(api_host or ""):
            raise ConfigurationError(
                f"{naming('public_url')} is an address of this machine or of a private network,"
                " which AF10 cannot reach: use a public one (a tunnel's, for instance)"
            )


def variable_name(field: str) -> str:
    """The environment variable of a setting."""
    return f"AF10_{field.upper()}"


def _read_environment(fields: Collection[str], except_for: Collection[str]) -> dict[str, Any]:
    # Imported here because only this way of configuring needs it: it costs a third of our import.
    from pydantic_settings import BaseSettings, SettingsConfigDict

    class Environment(BaseSettings):
        model_config = SettingsConfigDict(
            env_prefix="AF10_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
        )

    secrets = [name for name in _SECRETS if name in fields]
    names = [*fields, *(f"{name}_file" for name in secrets)]
    texts: dict[str, Any] = dict.fromkeys(names, (str | None, None))
    values = create_model("AF10Environment", __base__=Environment, **texts)().model_dump()
    for name in secrets:
        path = values.pop(f"{name}_file")
        if path is not None and values[name] is None and name not in except_for:
            values[name] = _read_secret_file(name, path)
    return {name: value for name, value in values.items() if value is not None}


def _read_secret_file(name: str, path: str) -> str:
    variable = f"{variable_name(name)}_FILE"
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigurationError(
            f"{variable} must be the path of a readable file that holds the secret: {reason}"
        ) from None


def _configuration_error(
    settings: type[StoreSettings], problem: Any, naming: Callable[[str], str]
) -> ConfigurationError:
    field = str(problem["loc"][0]) if problem["loc"] else ""
    if field not in settings.model_fields:
        return ConfigurationError(f"there is no setting {field!r}")
    expected = settings.model_fields[field].description
    if problem["type"] == "missing":
        return ConfigurationError(f"{naming(field)} is not set: it must be {expected}")
    return ConfigurationError(f"{naming(field)} is malformed: it must be {expected}")
