"""Accounts from a TOML file: where values come from, and what is refused in which words."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest

from af10_async import ConfigurationError, MissingExtraError
from af10_async.accounts import Account, FromEnv, FromFile, FromKeyring, read_accounts

GOOD = 'base_url = "https://a.example/v2"\napi_key = "k"\nusername = "u"\npassword = "p"\n'

Written = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(text: str) -> Path:
        path = tmp_path / "accounts.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1.0

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = {("af10", "dealer-1"): "from the keyring"}
        self.error = error

    def get_password(self, service: str, username: str) -> str | None:
        if self.error is not None:
            raise self.error
        return self.values.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.values[service, username] = password


@pytest.fixture
def ring() -> Iterator[Callable[[Ring], None]]:
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


def test_values_stand_in_the_file_or_where_it_says(
    written: Written,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ring: Callable[[Ring], None],
) -> None:
    monkeypatch.setenv("THE_KEY", "from the environment")
    (tmp_path / "secret").write_text("from a file\n")
    ring(Ring())
    path = written(
        """
        base_url = "https://a.example/v2"
        api_key = { env = "THE_KEY" }
        ca_file = "ca.pem"
        [accounts.amsterdam]
        username = "dealer-1"
        password = { keyring = "af10" }
        [accounts.utrecht]
        base_url = "https://b.example/v2"
        api_key = "of its own"
        username = "dealer-2"
        password = { file = "secret" }
        organization_name = "North"
        [accounts.breda]
        username = "dealer-3"
        password = { keyring = "af10", username = "dealer-1" }
        """
    )
    found = {account.name: account.resolve() for account in read_accounts(path)}
    common = {"ca_file": str(tmp_path / "ca.pem")}
    assert found == {
        "amsterdam": {
            "base_url": "https://a.example/v2",
            "api_key": "from the environment",
            "username": "dealer-1",
            "password": "from the keyring",
            **common,
        },
        "utrecht": {
            "base_url": "https://b.example/v2",
            "api_key": "of its own",
            "username": "dealer-2",
            "password": "from a file",
            "organization_name": "North",
            **common,
        },
        "breda": {
            "base_url": "https://a.example/v2",
            "api_key": "from the environment",
            "username": "dealer-3",
            "password": "from the keyring",
            **common,
        },
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no account: give each a table"),
        ("accounts = 3", "names no account"),
        ("[accounts]", "names no account"),
        ("accounts = [1, 2", "is no TOML (at "),
        ("x = 1\n[accounts.a]", "there is no setting 'x'; there are accounts, base_url"),
        (f'{GOOD}[accounts.a]\npasword = "canary"', "did you mean password?"),
        (f"{GOOD}[accounts]\na = 3", "it must be a table [accounts.a]"),
        ("[accounts.a]", "base_url and api_key and username and password is missing"),
        (f"{GOOD}[accounts.a]\nusername = 3", "username must be text, or say where it is"),
        (f'{GOOD}[accounts.a]\nusername = ""', "username is empty"),
        (f"{GOOD}[accounts.a]\nusername = {{}}", "must say where it is in one way"),
        (f'{GOOD}[accounts.a]\nusername = {{ env = "A", file = "B" }}', "in one way"),
        (f'{GOOD}[accounts.a]\nusername = {{ env = "A", username = "B" }}', "in one way"),
        (f"{GOOD}[accounts.a]\nusername = {{ env = 3 }}", "in one way"),
        (f'{GOOD}[accounts."../x"]', "must begin with a letter or digit"),
        (f'{GOOD}[accounts."a."]', "must not end in a dot"),
        (f"{GOOD}[accounts.Con]", "Windows has a device of that name"),
        (f'{GOOD}[accounts."nul.txt"]', "Windows has a device of that name"),
        (
            f'{GOOD}[accounts.a]\nusername="1"\n[accounts.A]\nusername="2"',
            "the accounts a and A differ in capitals only",
        ),
        (f"{GOOD}[accounts.a]\n[accounts.b]", "a and b are the same account"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_words(
    written: Written, text: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_accounts(written(text))
    assert words in str(caught.value)
    assert "accounts.toml" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_line_of_a_broken_file_is_named_and_not_quoted(written: Written) -> None:
    with pytest.raises(ConfigurationError, match=r"\(at line 2, column") as caught:
        read_accounts(written('a = 1\npassword = "canary\n'))
    assert "canary" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_accounts(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not UTF-8 text"):
        read_accounts(tmp_path / "binary.toml")


def account(**values: object) -> Account:
    usual: dict[str, object] = {
        "base_url": "https://a.example",
        "api_key": "k",
        "username": "dealer-1",
        "password": "p",
    }
    return Account("amsterdam", **(usual | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (FromEnv("AF10_NO_SUCH"), "the environment variable AF10_NO_SUCH is not set"),
        (FromFile("/no/such/file"), "the file /no/such/file cannot be read: No such file"),
        (FromKeyring("other"), "the keyring has nothing for the service other"),
    ],
)
def test_a_secret_that_is_not_there_names_account_and_field(
    source: object, words: str, ring: Callable[[Ring], None]
) -> None:
    ring(Ring())
    with pytest.raises(ConfigurationError) as caught:
        account(password=source).resolve()
    assert str(caught.value).startswith(f"account amsterdam: password: {words}")


@pytest.mark.parametrize(
    "error",
    [keyring.errors.KeyringLocked("canary"), keyring.errors.NoKeyringError("canary")],
    ids=["locked", "no backend"],
)
def test_a_keyring_that_cannot_be_asked_is_a_sentence(
    error: Exception, ring: Callable[[Ring], None]
) -> None:
    ring(Ring(error))
    with pytest.raises(ConfigurationError, match="the keyring cannot be asked") as caught:
        account(password=FromKeyring("af10")).resolve()
    assert "canary" not in str(caught.value)


def test_without_the_extra_its_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingExtraError, match=r'pip install "af10-async\[keyring\]"'):
        account(password=FromKeyring("af10")).resolve()


def test_secrets_that_others_can_read_are_warned_of(
    written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(f"{GOOD}[accounts.a]\n")
    read_accounts(path)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
    path.chmod(0o644)
    read_accounts(path)
    (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "chmod 600" in warning.getMessage()


def test_no_repr_shows_a_secret() -> None:
    assert "canary" not in repr(account(api_key="canary", username="canary", password="canary"))


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "a" * 65, "ä", "a b", "com1"])
def test_a_name_that_is_no_folder_anywhere_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="an account cannot be called"):
        Account(name, base_url="https://a.example", api_key="k", username="u", password="p")
