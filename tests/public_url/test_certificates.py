"""Certificate files: loaded, refused, followed through renewals, warned about."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from af10_async.errors import ClosedError, ConfigurationError
from af10_async.public_url.certificates import (
    CertificateFiles,
    certificate_files,
    covers,
    read_facts,
)

from .certificate_tools import (
    DAY,
    MIDDLE,
    NOW,
    TLS12,
    TLS13,
    Clock,
    Connection,
    Files,
    Leaf,
    client,
    connected,
    echoing,
    hand_made,
    issue,
    loaded,
    short_key,
    shown,
    signed_with_sha1,
    talk,
    told,
    with_passphrase,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.fixture(scope="module")
def rsa_leaf() -> Leaf:
    return issue(key_type=trustme.KeyType.RSA)


@pytest.fixture(scope="module")
def first() -> Leaf:
    return issue()


@pytest.fixture(scope="module")
def second() -> Leaf:
    return issue(by=MIDDLE)


# -- renewals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"], ids=["with SNI", "without SNI"])
async def test_new_handshakes_show_the_renewed_certificate_its_chain_and_another_kind_of_key(
    files: Files,
    clock: Clock,
    rsa_leaf: Leaf,
    second: Leaf,
    name: str,
    version: ssl.TLSVersion,
) -> None:
    files.hold(rsa_leaf)
    async with (
        CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served,
        echoing(served.context) as port,
    ):
        assert await shown(port, name, version) == rsa_leaf.serial
        files.hold(second)
        await clock.look()
        assert await shown(port, name, version) == second.serial
        files.hold(rsa_leaf)
        await clock.look()
        assert await shown(port, name, version) == rsa_leaf.serial


@pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
async def test_a_connection_goes_on_over_a_renewal_with_data_flowing(
    files: Files, first: Leaf, second: Leaf, version: ssl.TLSVersion
) -> None:
    files.hold(first)
    async with (
        CertificateFiles(files.cert, files.key) as served,
        echoing(served.context) as port,
        connected(port, version=version) as old,
    ):
        flow = asyncio.create_task(_flow(old))
        files.hold(second)
        assert await served.reload()
        assert await shown(port) == second.serial
        await flow
        assert old.serial == first.serial


async def _flow(connection: Connection) -> None:
    for _ in range(50):
        await connection.echo(os.urandom(1000))


@pytest.mark.parametrize(
    ("version", "option"),
    [(TLS13, 0), (TLS12, 0), (TLS12, ssl.OP_NO_TICKET)],
    ids=["1.3", "1.2 by ticket", "1.2 by id"],
)
async def test_a_session_from_before_a_renewal_is_resumed_after_it(
    files: Files, first: Leaf, second: Leaf, version: ssl.TLSVersion, option: int
) -> None:
    files.hold(first)
    context = client(version)
    context.options |= option
    async with (
        CertificateFiles(files.cert, files.key) as served,
        echoing(served.context) as port,
    ):
        session, _ = await asyncio.to_thread(talk, port, context, None)
        for leaf in (second, first):
            files.hold(leaf)
            assert await served.reload()
            session, was_reused = await asyncio.to_thread(talk, port, context, session)
            assert was_reused
            assert await shown(port, version=version) == leaf.serial


async def test_a_renewal_in_two_steps_is_taken_when_the_second_is_done(
    files: Files,
    clock: Clock,
    first: Leaf,
    second: Leaf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In between the old pair is shown, and one warning comes, at the second look."""
    files.hold(first)
    async with (
        CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served,
        echoing(served.context) as port,
    ):
        files.hold_cert(second.chain)
        await clock.look()
        assert told(caplog) == []
        await clock.look()
        (warning,) = told(caplog)
        assert "the key does not belong to the certificate" in warning
        assert "the certificate before it stays in use" in warning
        await clock.look()
        assert told(caplog) == []
        assert await shown(port) == first.serial
        files.hold_key(second.key)
        await clock.look()
        assert await shown(port) == second.serial
        assert told(caplog, logging.INFO) == [
            f"the certificate in {files.cert} was renewed, and is in use"
        ]


async def test_a_renewal_half_done_at_one_look_and_whole_at_the_next_is_worth_no_warning(
    files: Files,
    clock: Clock,
    first: Leaf,
    second: Leaf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        for leaf in (second, first, second):
            files.hold_cert(leaf.chain)
            await clock.look()
            files.hold_key(leaf.key)
            await clock.look()
    assert told(caplog) == []


async def test_a_link_that_is_led_elsewhere_is_a_renewal(
    tmp_path: Path, first: Leaf, second: Leaf
) -> None:
    """As Kubernetes does it: the files are links through a link to a folder, which is swapped."""
    for name, leaf in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        Files(tmp_path / name / "tls.crt", tmp_path / name / "tls.key").hold(leaf)
    (tmp_path / "data").symlink_to("one")
    links = Files(tmp_path / "tls.crt", tmp_path / "tls.key")
    links.cert.symlink_to("data/tls.crt")
    links.key.symlink_to("data/tls.key")
    async with (
        CertificateFiles(links.cert, links.key) as served,
        echoing(served.context) as port,
    ):
        assert await shown(port) == first.serial
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(tmp_path / "data")
        assert await served.reload()
        assert await shown(port) == second.serial


async def test_files_that_are_written_in_place_are_a_renewal(
    files: Files, first: Leaf, second: Leaf
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key) as served:
        assert not await served.reload()
        files.cert.write_bytes(second.chain)
        files.key.write_bytes(second.key)
        assert await served.reload()
        assert not await served.reload()


async def test_the_files_are_looked_at_every_poll_seconds(
    files: Files, clock: Clock, first: Leaf
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime, poll_seconds=7):
        await clock.look()
        await clock.look()
    assert clock.asked == [7, 7, 7]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_poll_seconds_that_would_never_let_go_are_refused(files: Files, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="poll_seconds must be more than 0"):
        CertificateFiles(files.cert, files.key, poll_seconds=seconds)


async def test_a_hundred_renewals_leave_no_task_no_descriptor_and_no_context(
    files: Files, clock: Clock
) -> None:
    leaves = [issue() for _ in range(3)]
    files.hold(leaves[0])
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served:
        await clock.look()
        before = _counts()
        for number in range(1, 101):
            files.hold(leaves[number % 3])
            await clock.look()
            assert served.facts.not_after is not None
        after = _counts()
    # One context more: that of the socket, which is no longer the newest, and its trust is gone.
    assert after[0] == before[0]
    assert after[1] <= before[1]
    assert after[2] <= before[2] + 1


def _counts() -> tuple[int, int, int]:
    gc.collect()
    contexts = sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects())
    folder = Path("/proc/self/fd")
    descriptors = len(list(folder.iterdir())) if folder.is_dir() else 0
    return len(asyncio.all_tasks()), descriptors, contexts


async def test_an_error_that_nobody_thought_of_does_not_end_the_looking(
    files: Files,
    first: Leaf,
    second: Leaf,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served:
        time, clock.time = clock.time, None  # type: ignore[assignment]  # a clock that broke
        await clock.look()
        assert told(caplog) == ["cannot look at the certificate files: TypeError"]
        clock.time = time
        files.hold(second)
        await clock.look()
        assert told(caplog, logging.INFO)
        assert not await served.reload()


# -- renewals that cannot be used ------------------------------------------------------------------


def _no_file(files: Files, leaf: Leaf) -> None:
    files.cert.unlink()


def _half_a_file(files: Files, leaf: Leaf) -> None:
    files.hold_cert(leaf.chain[:200])


def _a_passphrase(files: Files, leaf: Leaf) -> None:
    files.hold(Leaf(leaf.chain, with_passphrase(leaf)))


def _a_short_key(files: Files, leaf: Leaf) -> None:
    files.hold(short_key())


def _sha1(files: Files, leaf: Leaf) -> None:
    files.hold(signed_with_sha1())


def _expired(files: Files, leaf: Leaf) -> None:
    files.hold(issue(end=NOW - DAY))


def _too_early(files: Files, leaf: Leaf) -> None:
    files.hold(issue(begin=NOW + DAY))


def _for_clients_only(files: Files, leaf: Leaf) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files.hold(hand_made(key, usage=ExtendedKeyUsageOID.CLIENT_AUTH))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_no_file, "No such file or directory"),
        (_half_a_file, "holds no certificate that can be read"),
        (_a_passphrase, "the key in tls_key has a passphrase"),
        (_a_short_key, "too weak: the certificate's key is too short"),
        (_sha1, "too weak: a certificate of the chain is signed with SHA-1 or MD5"),
        (_expired, "has expired already, or is not valid yet"),
        (_too_early, "has expired already, or is not valid yet"),
        (_for_clients_only, "clients would refuse what tls_cert holds now: unsuitable"),
    ],
)
async def test_what_cannot_be_used_leaves_the_old_pair_in_use_until_it_is_mended(
    files: Files,
    clock: Clock,
    first: Leaf,
    second: Leaf,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Files, Leaf], None],
    why: str,
) -> None:
    files.hold(first)
    async with (
        CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served,
        echoing(served.context) as port,
    ):
        facts = served.facts
        spoil(files, second)
        for _ in range(4):
            await clock.look()
        (warning,) = told(caplog)
        assert why in warning
        assert served.facts == facts
        assert await shown(port) == first.serial
        files.hold(second)
        await clock.look()
        assert await shown(port) == second.serial
        assert told(caplog) == []


async def test_each_thing_that_is_wrong_is_told_once_and_again_after_it_was_mended(
    files: Files,
    clock: Clock,
    first: Leaf,
    second: Leaf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        for _ in range(2):
            for chain in (b"rubbish", second.chain, b"rubbish"):
                files.hold_cert(chain)
                await clock.look()
                await clock.look()
            assert len(told(caplog)) == 2
            files.hold(first)
            await clock.look()
            assert told(caplog) == []


# -- refused on entry ------------------------------------------------------------------------------


async def refused(cert: Path, key: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        async with CertificateFiles(cert, key):
            pass
    assert caught.value.__cause__ is None
    with pytest.raises(ConfigurationError) as by_check:
        certificate_files(cert, key)
    assert str(by_check.value) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (short_key, "the certificate's key is too short"),
        (signed_with_sha1, "a certificate of the chain is signed with SHA-1 or MD5"),
    ],
)
async def test_what_is_weak_is_refused_with_what_is_asked_for(
    files: Files, make: Callable[[], Leaf], what: str
) -> None:
    files.hold(make())
    text = await refused(files.cert, files.key)
    assert text.startswith(f"tls_cert and tls_key are too weak: {what};")
    assert "RSA of at least 2048 bits or ECDSA P-256, signed with SHA-256" in text


async def test_a_chain_with_a_weak_certificate_further_up_is_refused(
    files: Files, first: Leaf
) -> None:
    files.hold(Leaf(first.chain + short_key().chain, first.key))
    assert "further up the chain is too short" in await refused(files.cert, files.key)


async def test_a_kind_of_key_that_no_client_can_use_is_refused(files: Files) -> None:
    files.hold(hand_made(ec.generate_private_key(ec.SECP256K1())))
    assert "no client can connect with them" in await refused(files.cert, files.key)


@pytest.mark.parametrize(
    ("cert", "key", "why"),
    [
        ("missing", "key", "tls_cert ({folder}/missing): No such file or directory"),
        ("cert", "missing", "tls_key ({folder}/missing): No such file or directory"),
        ("folder", "key", "tls_cert ({folder}/folder) is not a file"),
        ("rubbish", "key", "tls_cert ({folder}/rubbish) holds no certificate that can be read"),
        ("key", "key", "tls_cert ({folder}/key) holds no certificate that can be read"),
        ("cert", "rubbish", "tls_key holds no private key that can be read"),
        ("cert", "locked", "the key in tls_key has a passphrase"),
        ("cert", "other", "the key does not belong to the certificate"),
        ("cert", "rsa", "the key does not belong to the certificate"),
        ("cert", "nul\0", "embedded null"),
    ],
)
async def test_files_that_cannot_be_used_are_refused_with_the_reason(
    tmp_path: Path, first: Leaf, second: Leaf, rsa_leaf: Leaf, cert: str, key: str, why: str
) -> None:
    (tmp_path / "cert").write_bytes(first.chain)
    (tmp_path / "key").write_bytes(first.key)
    (tmp_path / "other").write_bytes(second.key)
    (tmp_path / "rsa").write_bytes(rsa_leaf.key)
    (tmp_path / "rubbish").write_bytes(b"no PEM")
    (tmp_path / "locked").write_bytes(with_passphrase(first))
    (tmp_path / "folder").mkdir()
    text = await refused(tmp_path / cert, tmp_path / key)
    assert text.startswith("tls_cert and tls_key cannot be used: ")
    assert why.format(folder=tmp_path) in text
    assert text.endswith(
        "; they must be PEM files that belong together, the key without a passphrase"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
async def test_a_key_that_may_not_be_read_is_refused_by_its_name(files: Files, first: Leaf) -> None:
    files.hold(first)
    files.key.chmod(0)
    assert f"tls_key ({files.key}): Permission denied" in await refused(files.cert, files.key)


async def test_both_in_one_file_is_fine(files: Files, second: Leaf) -> None:
    files.hold_cert(second.key + second.chain)
    async with (
        CertificateFiles(files.cert, files.cert) as served,
        echoing(served.context) as port,
    ):
        assert await shown(port) == second.serial


@pytest.mark.parametrize("is_cert", [True, False])
def test_one_file_without_the_other_is_refused(files: Files, is_cert: bool) -> None:
    given = (files.cert, None) if is_cert else (None, files.key)
    with pytest.raises(ConfigurationError, match="TLS needs both: tls_cert and tls_key"):
        certificate_files(*given)


async def test_what_settings_ask_for_is_checked_files_or_nothing(files: Files, first: Leaf) -> None:
    assert certificate_files(None, None) is None
    files.hold(first)
    found = certificate_files(files.cert, files.key)
    assert found is not None
    async with found:
        assert found.covers("localhost")


# -- settings of TLS -------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_a_client_of_old_tls_is_turned_away(
    files: Files, first: Leaf, version: ssl.TLSVersion
) -> None:
    """A server that is lax serves the very same client."""
    files.hold(first)
    old = client()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    lax = loaded(files)
    lax.set_ciphers("ALL:@SECLEVEL=0")
    lax.minimum_version = version
    async with (
        CertificateFiles(files.cert, files.key) as served,
        echoing(served.context) as port,
        echoing(lax) as lax_port,
    ):
        await asyncio.to_thread(talk, lax_port, old, None)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(talk, port, old, None)
        assert await shown(port) == first.serial


async def test_what_is_weak_in_tls_is_off(files: Files, first: Leaf) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key) as served:
        context = served.context
        assert context.security_level >= 2
        for option in (
            ssl.OP_NO_RENEGOTIATION,
            ssl.OP_NO_COMPRESSION,
            ssl.OP_CIPHER_SERVER_PREFERENCE,
        ):
            assert context.options & option
        for cipher in context.get_ciphers():
            assert cipher["strength_bits"] >= 128
            assert cipher["protocol"] == "TLSv1.3" or "ECDHE" in cipher["name"]


LAX = """
openssl_conf = conf
[conf]
ssl_conf = ssl
[ssl]
system_default = lax
[lax]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
"""
PROBE = """
import asyncio, sys
from af10_async.public_url.certificates import CertificateFiles

async def main():
    async with CertificateFiles(*sys.argv[1:]) as served:
        context = served.context
        print(context.security_level, context.minimum_version.name)

asyncio.run(main())
"""


def test_a_lax_system_makes_nothing_weaker(tmp_path: Path, files: Files, first: Leaf) -> None:
    files.hold(first)
    settings = tmp_path / "openssl.cnf"
    settings.write_text(LAX)
    found = subprocess.run(
        [sys.executable, "-c", PROBE, files.cert, files.key],
        env={**os.environ, "OPENSSL_CONF": str(settings)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )

    assert found.stdout == "2 TLSv1_2\n"


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o600, 0o400])
async def test_a_key_that_others_may_read_is_used_and_warned_about(
    files: Files, first: Leaf, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(first)
    files.key.chmod(mode)
    async with CertificateFiles(files.cert, files.key, runtime=Clock().runtime) as served:
        await served.reload()
    expected = f"others may read the private key in {files.key}: chmod 600 {files.key}"
    assert told(caplog) == ([expected] if mode & 0o077 else [])


# -- expiry ----------------------------------------------------------------------------------------


async def test_an_expired_certificate_is_used_and_told_as_an_error(
    files: Files, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(issue(end=NOW - DAY))
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime) as served:
        assert served.facts.not_after == NOW - DAY
        assert told(caplog, logging.ERROR) == [
            f"the certificate in {files.cert} expired on 2026-05-31 00:00 UTC:"
            " AF10 cannot call back until it is renewed"
        ]


async def test_one_that_is_not_valid_yet_is_told_as_an_error(
    files: Files, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(issue(begin=NOW + DAY))
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        (text,) = told(caplog, logging.ERROR)
        assert "is not valid before 2026-06-02 00:00 UTC" in text


async def test_one_that_soon_expires_is_warned_about_once_a_day_until_it_is_renewed(
    files: Files, clock: Clock, second: Leaf, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(issue(end=NOW + 15 * DAY))
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        clock.time = NOW + DAY  # fourteen days are left
        await clock.look()
        assert told(caplog) == []
        for seconds, count in ((1, 1), (3600, 0), (DAY - 3601, 0), (1, 1), (DAY, 1), (1, 0)):
            clock.time += seconds
            await clock.look()
            found = told(caplog)
            assert len(found) == count
            assert all("expires on 2026-06-16 00:00 UTC: renew it" in text for text in found)
        clock.time = NOW + 15 * DAY
        await clock.look()
        await clock.look()
        assert ["expired on 2026-06-16" in text for text in told(caplog, logging.ERROR)] == [True]
        files.hold(second)
        await clock.look()
        clock.time += DAY
        await clock.look()
        assert told(caplog) == []


async def test_a_clock_that_is_set_back_does_not_silence_the_warning(
    files: Files, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(issue(end=NOW + 5 * DAY))
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        clock.time -= 3 * DAY
        await clock.look()
        assert len(told(caplog)) == 2


async def test_one_that_lives_for_days_only_is_warned_about_in_its_last_third(
    files: Files, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold(issue(begin=NOW, end=NOW + 6 * DAY))
    async with CertificateFiles(files.cert, files.key, runtime=clock.runtime):
        clock.time = NOW + 4 * DAY
        await clock.look()
        assert told(caplog) == []
        clock.time += 1
        await clock.look()
        assert len(told(caplog)) == 1


# -- facts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-10, 10])
@pytest.mark.parametrize("maximum", [TLS12, TLS13])
def test_facts_are_those_of_the_certificate_expired_or_not(
    files: Files, days: int, maximum: ssl.TLSVersion
) -> None:
    names = ("hooks.example.com", "*.example.org", "127.0.0.1", "2001:db8::1")
    end = float(int(datetime.now(UTC).timestamp() + days * DAY))
    files.hold(issue(*names, by=MIDDLE, begin=NOW - 900 * DAY, end=end))
    context = loaded(files)
    context.maximum_version = maximum
    facts = read_facts(context, files.cert)
    assert (facts.not_before, facts.not_after) == (NOW - 900 * DAY, end)
    assert sorted(facts.names) == sorted(names)


def test_facts_of_one_that_clients_refuse_are_unknown_with_a_warning(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files.hold(hand_made(key, usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    facts = read_facts(loaded(files), files.cert)
    assert (facts.not_before, facts.not_after, facts.names) == (None, None, ())
    (text,) = told(caplog)
    assert "clients will refuse" in text
    assert "unsuitable certificate purpose" in text


async def test_one_that_clients_refuse_is_used_all_the_same_when_there_is_no_other(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Who calls back may not look at what a certificate was made for."""
    key = ec.generate_private_key(ec.SECP256R1())
    files.hold(hand_made(key, usage=ExtendedKeyUsageOID.CLIENT_AUTH))
    async with CertificateFiles(files.cert, files.key) as served:
        assert served.facts.not_after is None
    assert len(told(caplog)) == 1


@pytest.mark.parametrize(
    ("host", "is_covered"),
    [
        ("hooks.example.com", True),
        ("HOOKS.example.com.", True),
        ("a.example.org", True),
        ("a.b.example.org", False),
        ("example.org", False),
        ("evil.com", False),
        ("hooks.example.com.evil.com", False),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("[2001:db8::1]", True),
        ("2001:db8:0::1", True),
        ("2001:db8::2", False),
        ("", False),
        (".", False),
        (".example.org", False),
        ("a\0b", False),
        ("x" * 70 + ".example.org", False),
    ],
)
async def test_a_host_is_covered_when_the_certificate_is_for_it(
    files: Files, host: str, is_covered: bool
) -> None:
    leaf = issue("hooks.example.com", "*.example.org", "127.0.0.1", "2001:db8::1", end=NOW - DAY)
    files.hold(leaf)
    assert covers(loaded(files), files.cert, host) is is_covered
    async with CertificateFiles(files.cert, files.key) as served:
        assert served.covers(host) is is_covered


def test_a_common_name_covers_nothing(files: Files) -> None:
    files.hold(hand_made(ec.generate_private_key(ec.SECP256R1())))
    assert read_facts(loaded(files), files.cert).names == ()
    assert not covers(loaded(files), files.cert, "only.example.com")


# -- its life --------------------------------------------------------------------------------------


async def test_before_it_is_entered_and_after_it_was_left_it_says_so(
    files: Files, first: Leaf
) -> None:
    files.hold(first)
    served = CertificateFiles(files.cert, files.key)
    for _ in range(2):
        for use in (lambda: served.context, lambda: served.facts, lambda: served.covers("x")):
            with pytest.raises(ClosedError, match="enter them with `async with`"):
                use()
        with pytest.raises(ClosedError):
            await served.reload()
        async with served:
            with pytest.raises(ClosedError, match="in use already"):
                await served.__aenter__()
            assert served.covers("localhost")


async def test_a_socket_that_outlives_it_goes_on_with_the_newest_certificate(
    files: Files, first: Leaf, second: Leaf
) -> None:
    files.hold(first)
    async with CertificateFiles(files.cert, files.key) as served:
        context = served.context
        files.hold(second)
        await served.reload()
    async with echoing(context) as port:
        assert await shown(port) == second.serial
