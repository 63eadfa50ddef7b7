"""The wire, when nothing goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import uuid
import zipfile

import httpx
import pytest

from af10_async.sandbox import Account, Sandbox

from .conftest import Callbacks, Wire, wired


async def test_the_sample_of_af10_itself_gets_its_backup(wire: Wire) -> None:
    """Authenticate, POST, be called back, redeem, fetch the file."""
    sandbox = wire.sandbox

    accepted = await wire.post()
    secret = await wire.callbacks.ids.get()
    redeemed = await wire.get("/webhook", id=secret)
    file = await wire.http.get(redeemed.json()["data"]["url"])

    assert accepted.status_code == 202
    assert accepted.json()["successCode"] == 202
    assert uuid.UUID(secret).version == 4
    with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
        assert archive.testzip() is None
    (job,) = sandbox.jobs
    assert file.content == sandbox.archive(job)
    assert hashlib.sha256(file.content).hexdigest() == sandbox.archive_sha256(job)
    assert [attempt.status for attempt in job.callbacks] == [200]


async def test_everything_works_over_https() -> None:
    """With `tls`, base URL, API and file are all https, under a certificate of its own CA."""
    async with wired(tls=True) as wire:
        url = await wire.redeem(await wire.start())
        assert (await wire.http.get(url)).status_code == 200
        assert {wire.sandbox.base_url[:8], wire.api[:8], url[:8]} == {"https://"}


async def test_authenticate_says_what_the_wire_promises(wire: Wire) -> None:
    """Token, api_url, user_id, environment and an expiry without a zone."""
    answer = (await wire.authenticate()).json()

    assert answer["api_url"] == wire.sandbox.api_url != wire.sandbox.base_url
    assert re.fullmatch(r"\d{8}T\d{6}", answer["token_valid_until"])
    assert answer["token"]
    assert {"user_id", "environment"} <= answer.keys()


@pytest.mark.parametrize("name", ["api_key", "username", "password"])
async def test_wrong_credentials_are_not_authorized(wire: Wire, name: str) -> None:
    """401, in the words of the wire, whichever of the three is wrong."""
    answer = await wire.authenticate(changes={name: "wröng"})

    assert answer.status_code == 401
    assert answer.json() == {"errorCode": 401, "errorMessage": "Not authorized"}


async def test_an_organization_must_match_when_both_name_one() -> None:
    """`organization_name` is optional, but a wrong one is refused."""
    async with wired(accounts=[Account(organization_name="Garage Jansen")]) as wire:
        right = await wire.authenticate(changes={"organization_name": "Garage Jansen"})
        wrong = await wire.authenticate(changes={"organization_name": "Garage Smit"})
        assert (right.status_code, wrong.status_code) == (200, 401)


@pytest.mark.parametrize("path", ["/backup/owner", "/vehicle", "/webhook", "/nonsense", "/"])
async def test_the_bootstrap_url_is_only_for_logging_in(wire: Wire, path: str) -> None:
    """Whoever goes on at the bootstrap URL gets 404, in JSON."""
    answer = await wire.http.get(wire.sandbox.base_url + path, headers={"token": wire.token})

    assert answer.status_code == 404
    assert answer.json()["errorCode"] == 404


@pytest.mark.parametrize("path", ["/nonsense", "/vehicle/nonsense", "/backup/owner/x"])
async def test_an_unknown_path_is_404_in_json(wire: Wire, path: str) -> None:
    """Of the API too."""
    answer = await wire.get(path)
    assert (answer.status_code, answer.json()["errorCode"]) == (404, 404)


async def test_a_wrong_method_is_405_in_json(wire: Wire) -> None:
    """A GET of a POST endpoint, for instance."""
    answer = await wire.get("/backup/owner")
    assert (answer.status_code, answer.json()["errorCode"]) == (405, 405)


@pytest.mark.parametrize("path", ["/backup/owner", "/webhook", "/vehicle", "/vehicle/1"])
async def test_no_token_is_not_authorized(wire: Wire, path: str) -> None:
    """Every call of the API needs one."""
    method = "POST" if path == "/backup/owner" else "GET"
    answer = await wire.http.request(method, wire.api + path)
    assert (answer.status_code, answer.json()["errorMessage"]) == (401, "Not authorized")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b"\xff",
        b'{"webhook_url": 1}',
        b'{"webhook_url": "http://example.com/"}',
        b'{"webhook_url": "https://"}',
        b'{"webhook_url": "https://[x/"}',
    ],
)
async def test_a_post_without_a_usable_webhook_url_is_400(wire: Wire, body: bytes) -> None:
    """And starts nothing."""
    url = wire.api + "/backup/owner"
    answer = await wire.http.post(url, content=body, headers={"token": wire.token})

    assert (answer.status_code, answer.json()["errorCode"]) == (400, 400)
    assert wire.sandbox.jobs == []


async def test_the_id_is_added_to_a_query_that_is_there(wire: Wire) -> None:
    """`&id=` when the URL has a query, `?id=` when not; the rest stays as it was."""
    await wire.post(f"{wire.callbacks.base}/a%2Fb?x=1%20")
    first = await wire.callbacks.ids.get()
    await wire.post(f"{wire.callbacks.base}/plain#fragment")
    second = await wire.callbacks.ids.get()

    assert [path for _, path in wire.callbacks.calls] == [
        f"/a%2Fb?x=1%20&id={first}",
        f"/plain?id={second}",
    ]


async def test_redeeming_twice_works(wire: Wire) -> None:
    """And gives the same address while it is good."""
    job = await wire.start()
    assert await wire.redeem(job) == await wire.redeem(job)


async def test_an_unknown_secret_is_404(wire: Wire) -> None:
    """Made-up, missing, and that of a job that is not ready."""
    for secret in ("", str(uuid.uuid4())):
        assert (await wire.get("/webhook", id=secret)).json()["errorCode"] == 404


async def test_a_job_is_not_ready_before_its_time() -> None:
    """Its secret is 404 until `job_seconds` have passed; closing forgets the callback."""
    async with wired(job_seconds=60) as wire:
        await wire.post()
        (job,) = wire.sandbox.jobs
        assert (await wire.get("/webhook", id=job.secret)).status_code == 404
        assert job.callbacks == []


async def test_a_callback_comes_after_job_seconds() -> None:
    """From the accepted POST."""
    async with wired(job_seconds=0.03) as wire:
        loop = asyncio.get_running_loop()
        before = loop.time()
        await wire.post()
        await wire.callbacks.ids.get()
        assert loop.time() - before > 0.025


async def test_accounts_do_not_see_each_other() -> None:
    """Neither by secret, nor in the numbers of their jobs."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts) as wire:
        first = await wire.start()
        await wire.log_in(accounts[1])
        second = await wire.start()

        assert (first.filename, second.filename) == ("backup-one-1.zip", "backup-two-1.zip")
        assert (await wire.get("/webhook", id=first.secret)).status_code == 404
        assert (await wire.get("/webhook", id=second.secret)).status_code == 200
        assert wire.sandbox.archive(first) != wire.sandbox.archive(second)
        assert [seen.account for seen in wire.sandbox.requests][-1] == "two"


async def test_expired_tokens_are_refused(wire: Wire) -> None:
    """All that were given so far; a new one works."""
    wire.sandbox.expire_tokens()
    assert (await wire.get("/vehicle")).status_code == 401
    await wire.log_in()
    assert (await wire.get("/vehicle")).status_code == 200


async def test_a_token_ages() -> None:
    """It is good for `token_seconds`."""
    async with wired(token_seconds=0.0) as wire:
        assert (await wire.get("/vehicle")).status_code == 401


async def test_addresses_of_files_age_and_redeeming_renews_them() -> None:
    """Each redeeming gives an address of its own, good for `file_seconds`."""
    async with wired(file_seconds=60) as wire:
        job = await wire.start()
        url = await wire.redeem(job)
        assert (await wire.http.get(url)).status_code == 200
        assert job.link is not None
        assert job.link.good_until is not None
        job.link.good_until -= 60
        stale = await wire.http.get(url)
        fresh = await wire.http.get(await wire.redeem(job))
        assert (stale.status_code, fresh.status_code) == (403, 200)


async def test_every_request_is_seen(wire: Wire) -> None:
    """With its path, query, headers, body, account and status."""
    await wire.post()
    seen = wire.sandbox.requests[-1]

    assert (seen.method, seen.path, seen.where, seen.status) == (
        "POST",
        "/backup/owner",
        "api",
        202,
    )
    assert seen.headers["token"] == wire.token
    assert wire.webhook_url.encode() in seen.body
    assert seen.account == wire.sandbox.username
    assert wire.sandbox.count("POST", "/backup/owner") == 1
    assert wire.sandbox.requests[0].query["api_key"] == wire.sandbox.api_key


async def test_only_so_many_requests_are_remembered() -> None:
    """But all are counted."""
    async with wired(max_requests=2) as wire:
        for _ in range(5):
            await wire.get("/vehicle", fields="brand")
        assert len(wire.sandbox.requests) == 2
        assert wire.sandbox.count("GET", "/vehicle") == 5


async def test_a_callback_that_fails_is_noted_and_not_repeated(wire: Wire) -> None:
    """By its status, or by the name of the error."""
    wire.callbacks.answer = 503
    job = await wire.start()
    assert [attempt.status for attempt in job.callbacks] == [503]

    await wire.post("https://127.0.0.1:1/nobody")
    await wire.sandbox.settled()
    (attempt,) = wire.sandbox.jobs[-1].callbacks
    assert attempt.status is None
    assert attempt.error == "ClientConnectorError"


async def test_a_callback_to_an_unknown_authority_fails(wire: Wire) -> None:
    """TLS is verified; only its own authority and `callback_ca` are trusted beside the system's."""
    async with Sandbox() as other, Callbacks(other).listen() as elsewhere:
        await wire.post(elsewhere.base + "/key")
        await wire.sandbox.settled()
        (attempt,) = wire.sandbox.jobs[-1].callbacks
        assert attempt.error == "ClientConnectorCertificateError"

        async with wired(callback_ca=other.ca_pem) as trusting:
            await trusting.post(elsewhere.base + "/key")
            await trusting.sandbox.settled()
            assert [a.status for a in trusting.sandbox.jobs[-1].callbacks] == [200]


async def test_a_callback_can_be_made_by_hand(wire: Wire) -> None:
    """The same again, another secret, another URL, another method."""
    job = await wire.start()
    forged = str(uuid.uuid4())

    assert await wire.sandbox.call_back(job) == 200
    assert await wire.sandbox.call_back(job, secret=forged) == 200
    assert await wire.sandbox.call_back(job, url=wire.callbacks.base + "/x", method="HEAD") == 200
    assert await wire.sandbox.call_back(job, url="https://127.0.0.1:1/") is None
    assert wire.callbacks.calls[1:] == [
        ("GET", f"/hooks/key?id={job.secret}"),
        ("GET", f"/hooks/key?id={forged}"),
        ("HEAD", "/x"),
    ]
    assert len(job.callbacks) == 5


async def test_webhook_paths_can_be_others() -> None:
    """For whoever knows of more webhook-type endpoints than the wire tells."""
    async with wired(webhook_paths=["/export/stock"]) as wire:
        body = {"webhook_url": wire.webhook_url, "kind": "all"}
        url = wire.api + "/export/stock"
        answer = await wire.http.post(url, json=body, headers={"token": wire.token})
        assert answer.status_code == 202
        assert wire.sandbox.jobs[0].body == body
        assert (await wire.post()).status_code == 404


async def test_hundreds_of_flows_at_once(wire: Wire) -> None:
    """Each gets its own callback and its own file."""

    async def flow(number: int) -> None:
        assert (await wire.post(f"{wire.callbacks.base}/{number}")).status_code == 202

    await asyncio.gather(*(flow(number) for number in range(200)))
    await wire.sandbox.settled()
    called = {path.split("?")[0] for _, path in wire.callbacks.calls}
    assert called == {f"/{number}" for number in range(200)}
    assert len({job.secret for job in wire.sandbox.jobs}) == 200


async def test_a_malformed_request_is_logged_without_what_is_in_it(
    wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even at DEBUG."""
    caplog.set_level("DEBUG")
    port = httpx.URL(wire.api).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /v2/authenticate?password=hunter2 HTTP/9.x\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"400" in answer

    await wire.start()
    ours = "".join(r.getMessage() for r in caplog.records if not r.name.startswith("http"))
    assert "hunter2" not in ours
    assert wire.sandbox.password not in ours
    assert wire.sandbox.jobs[0].secret not in ours
