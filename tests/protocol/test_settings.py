"""Settings: from arguments or the environment, with errors that name the place, never the value."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from af10_async.errors import ConfigurationError
from af10_async.models import Authentication
from af10_async.settings import Settings, variable_name

GOOD: dict[str, str] = {
    "base_url": "https://api.autoflex10.example/v2",
    "api_key": "canary-key",
    "username": "canary-user",
    "password": "canary pass",
}
SECRETS = ["api_key", "username", "password", "callback_secret"]
MALFORMED = [
    ("base_url", "canary"),
    ("base_url", "ftp://canary.example"),
    ("base_url", "https://"),
    ("base_url", "https://canary.example:0"),
    ("base_url", "https://canary.example:99999"),
    ("base_url", "https://canary.example:x"),
    ("base_url", "https://[canary"),
    ("base_url", "https://u:p@canary.example"),
    ("base_url", "https://canary.example/v2?x=1"),
    ("base_url", "https://canary.example/v2?"),
    ("base_url", "https://canary.example/v2#x"),
    ("base_url", "https://canary.example/v2#"),
    ("base_url", "https://canary.example/v 2"),
    ("base_url", " https://canary.example/v2"),
    ("base_url", "https://canary\n.example/v2"),
    ("base_url", "https://good.example\\@canary.example"),
    ("api_key", "canary key"),
    ("api_key", "canary\u00e9"),
    ("api_key", "canary\r\nX: y"),
    ("public_url", "http://canary.example"),
    ("public_url", "canary.example"),
    ("public_url", "https://canary.example/?x=1"),
    ("public_url", "https://canary.example/#x"),
    ("public_url", "https://u@canary.example/"),
    ("listen_port", "-1"),
    ("listen_port", "65536"),
    ("listen_port", "canary"),
    ("tls_cert", "canary.pem"),
    ("tls_key", "canary.pem"),
    ("ca_file", "canary.pem"),
    ("callback_secret", "canary-too-shor"),
    ("store", "canary:nonsense"),
]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("AF10_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def good_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(variable_name(name), value)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "some.pem"
    path.write_text("-----BEGIN-----")
    return str(path)


def refused(**arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_arguments(**{**GOOD, **arguments})
    return str(caught.value)


def refused_env(**arguments: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(**arguments)
    return str(caught.value)


def revealed(settings: Settings, name: str) -> str:
    value: str = getattr(settings, name).get_secret_value()
    return value


def test_four_arguments_are_enough() -> None:
    settings = Settings.from_arguments(**GOOD)
    assert settings.base_url == GOOD["base_url"]
    assert {name: revealed(settings, name) for name in SECRETS[:3]} == {
        name: GOOD[name] for name in SECRETS[:3]
    }
    assert (settings.listen_host, settings.listen_port) == ("127.0.0.1", None)
    assert revealed(settings, "store") == "memory:"
    assert settings.public_url is None
    assert settings.organization_name is None
    assert settings.callback_secret is None


@pytest.mark.usefixtures("good_environment")
def test_the_environment_gives_the_same_settings_as_arguments() -> None:
    assert Settings.from_env() == Settings.from_arguments(**GOOD)


def test_every_setting_can_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, pem: str
) -> None:
    every = GOOD | {
        "organization_name": "Garage BV",
        "public_url": "https://hooks.example/af10",
        "listen_host": "0.0.0.0",
        "listen_port": "8443",
        "tls_cert": pem,
        "tls_key": pem,
        "ca_file": pem,
        "trusted_proxies": "127.0.0.1, fd00::/8",
        "callback_secret": "sixteen letters!",
        "store": "memory:",
    }
    assert set(every) == set(Settings.model_fields)
    for name, value in every.items():
        monkeypatch.setenv(variable_name(name), value)
    settings = Settings.from_env()
    assert settings == Settings.from_arguments(**every)
    assert settings.listen_port == 8443
    assert settings.ca_file == Path(pem)


def test_a_setting_has_one_variable() -> None:
    assert variable_name("api_key") == "AF10_API_KEY"


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_setting_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in set(GOOD) - {name}:
        monkeypatch.setenv(variable_name(other), GOOD[other])
    assert refused(**{name: None}).startswith(f"{name} is not set: it must be ")
    assert refused_env().startswith(f"{variable_name(name)} is not set: it must be ")
    monkeypatch.setenv(variable_name(name), "")
    assert refused_env().startswith(f"{variable_name(name)} is not set: it must be ")


@pytest.mark.parametrize(("name", "value"), MALFORMED)
@pytest.mark.usefixtures("good_environment")
def test_a_malformed_setting_is_named_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refused(**{name: value})
    assert said.startswith(f"{name} is malformed: it must be ")
    assert "canary" not in said
    monkeypatch.setenv(variable_name(name), value)
    said = refused_env()
    assert said.startswith(f"{variable_name(name)} is malformed: it must be ")
    assert "canary" not in said


@pytest.mark.parametrize(
    "name", ["base_url", "api_key", "username", "password", "organization_name", "listen_host"]
)
def test_an_empty_argument_is_malformed(name: str) -> None:
    assert refused(**{name: ""}).startswith(f"{name} is malformed")


def test_an_unknown_argument_is_named_and_its_value_is_not() -> None:
    assert refused(pasword="canary") == "there is no setting 'pasword'"


@pytest.mark.usefixtures("good_environment")
def test_an_argument_wins_over_the_environment() -> None:
    settings = Settings.from_env(username="other", password=None)
    assert revealed(settings, "username") == "other"
    assert revealed(settings, "password") == GOOD["password"]


def test_a_slash_at_the_end_of_an_address_is_taken_off() -> None:
    settings = Settings.from_arguments(**GOOD | {"base_url": "https://a.example/v2/"})
    assert settings.base_url == "https://a.example/v2"


def test_no_secret_is_in_the_repr() -> None:
    settings = Settings.from_arguments(**GOOD, callback_secret="canary-0123456789")
    assert "canary" not in repr(settings) + str(settings)


def test_settings_cannot_be_changed() -> None:
    settings = Settings.from_arguments(**GOOD)
    with pytest.raises(ValidationError):
        settings.base_url = "https://elsewhere.example"  # type: ignore[misc]


# -- secrets in files ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.usefixtures("good_environment")
def test_each_secret_may_be_in_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("from-the-file-0123\n", encoding="utf-8")
    monkeypatch.delenv(variable_name(name), raising=False)
    monkeypatch.setenv(f"{variable_name(name)}_FILE", str(tmp_path / "secret"))
    assert revealed(Settings.from_env(), name) == "from-the-file-0123"
    monkeypatch.setenv(variable_name(name), "from-the-variable")
    assert revealed(Settings.from_env(), name) == "from-the-variable"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("trouble", ["missing", "folder", "not-text"])
@pytest.mark.usefixtures("good_environment")
def test_a_secret_file_that_cannot_be_read_is_named_by_its_variable(
    name: str, trouble: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "canary"
    if trouble == "folder":
        path.mkdir()
    if trouble == "not-text":
        path.write_bytes(b"canary\xff\xfe")
    monkeypatch.delenv(variable_name(name), raising=False)
    monkeypatch.setenv(f"{variable_name(name)}_FILE", str(path))
    said = refused_env()
    assert said.startswith(f"{variable_name(name)}_FILE must be the path of a readable file")
    assert "canary" not in said
    assert revealed(Settings.from_env(**{name: "an-argument-wins"}), name) == "an-argument-wins"


@pytest.mark.usefixtures("good_environment")
def test_what_is_no_secret_has_no_file_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AF10_BASE_URL")
    monkeypatch.setenv("AF10_BASE_URL_FILE", "somewhere")
    assert refused_env().startswith("AF10_BASE_URL is not set")


# -- settings that belong together -----------------------------------------------------------------


@pytest.mark.parametrize(("there", "missing"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
@pytest.mark.usefixtures("good_environment")
def test_tls_needs_both_files(
    there: str, missing: str, pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refused(**{there: pem}).startswith(f"{there} is set but {missing} is not")
    monkeypatch.setenv(variable_name(there), pem)
    expected = f"{variable_name(there)} is set but {variable_name(missing)} is not"
    assert refused_env().startswith(expected)


def test_a_public_address_needs_a_known_port() -> None:
    said = refused(public_url="https://hooks.example")
    assert said.startswith("public_url is set but listen_port is not")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "10.0.0.1:8443", "[::1]", "192.168.1.9"]
)
def test_a_public_address_must_be_public_when_af10_is(host: str) -> None:
    said = refused(public_url=f"https://{host}", listen_port=8443)
    assert said.startswith("public_url is an address of this machine")
    private = GOOD | {"base_url": "http://127.0.0.1:8000"}
    settings = Settings.from_arguments(**private, public_url=f"https://{host}/", listen_port=8443)
    assert settings.public_url == f"https://{host}"


@pytest.mark.parametrize("url", ["https://hooks.example", "https://h.example:8443/a/b"])
def test_a_public_address_may_have_a_port_and_a_path(url: str) -> None:
    settings = Settings.from_arguments(**GOOD, public_url=url, listen_port=0)
    assert (settings.public_url, settings.listen_port) == (url, 0)


# -- what AF10 sends -------------------------------------------------------------------------------


def test_an_authentication_is_read_tolerantly() -> None:
    answer = Authentication.model_validate(
        {"token": "t-1", "user_id": 42, "token_valid_until": 5, "new": [1]}
    )
    assert (answer.token, answer.token_valid_until, answer.api_url) == ("t-1", "5", None)
    assert Authentication.model_validate(
        {"token": "t-1", "token_valid_until": [2.5]}
    ) == Authentication(token="t-1")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"token": None},
        {"token": ""},
        {"token": 5},
        {"token": "canary token"},
        {"token": "canary\r\nX: y"},
        {"token": "canary\n"},
        {"token": "canary\u00e9"},
        pytest.param({"token": "canary" * 1000}, id="very-long"),
        ["canary"],
        "canary",
    ],
)
def test_a_token_that_no_header_could_carry_is_refused_and_not_repeated(value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Authentication.model_validate(value)
    assert "canary" not in str(caught.value)
