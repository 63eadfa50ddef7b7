"""The order that keeps everything: the rules that hold whatever AF10 and the network do."""

from __future__ import annotations

import asyncio
import math
import ssl
from pathlib import Path

import httpx
import pytest

from af10_async import (
    AF10Client,
    AF10Error,
    APIError,
    AuthenticationError,
    BadResponseError,
    CallbackServer,
    CallbackTimeoutError,
    ConfigurationError,
    ConnectFailedError,
    JobNotFoundError,
    JobState,
    Orphan,
    RateLimitError,
    RemoteFile,
    RetryPolicy,
    ServerError,
    UnexpectedPayloadError,
)
from af10_async.sandbox import Account, Fault, Sandbox

from ..conftest import ClientMaker, Tls

POST = ("POST", "/backup/owner")
REDEEM = ("GET", "/webhook")
LOGIN = ("GET", "/authenticate")


# -- 1. Register, then send ------------------------------------------------------------------------


async def test_a_callback_that_overtakes_the_answer_to_the_post_is_matched(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.early())
    job = af10.backup_owner()
    await job
    assert [call.status for call in sandbox.jobs[0].callbacks] == [200]
    assert sandbox.count(*POST) == 1


async def test_a_busy_answer_after_the_callback_is_not_a_reason_to_post_again(
    make_client: ClientMaker, sandbox: Sandbox, tls: Tls
) -> None:
    """The callback has proven the start, whatever a balancer says afterwards."""
    answer = b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n"
    posts: list[bytes] = []
    async with make_client() as af10:
        job = af10.backup_owner()

        async def balancer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            posts.append(await reader.readuntil(b"\r\n\r\n"))
            url = f"{af10.callback_url}/af10/{job.key}?id=abc"
            context = ssl.create_default_context(cafile=tls.ca)
            async with httpx.AsyncClient(verify=context) as caller:
                assert (await caller.get(url)).status_code == 200
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(balancer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        api_url = f"http://127.0.0.1:{port}"
        sandbox.faults.add(
            Fault.status(200, {"token": "t", "api_url": api_url}, on="authenticate", times=None)
        )
        async with server:
            await job.start()
        assert len(posts) == 1


async def test_a_callback_settles_a_post_that_is_never_answered(
    af10: AF10Client, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("af10_async.job_start.EARLY_CALLBACK_GRACE", 0.01)
    sandbox.faults.add(Fault.hang(on="start"))
    job = af10.backup_owner()
    await job
    assert job.state is JobState.READY
    assert sandbox.count(*POST) == 1


# -- 2 and 3. Callbacks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault.twice(5),
        Fault.extra_params(),
        Fault.ampersand(),
        Fault.trailing_slash(),
        Fault.forged_first(),
        Fault.method("HEAD"),
        Fault.method("POST"),
    ],
    ids=["twice", "extra", "ampersand", "slash", "forged", "HEAD", "POST"],
)
async def test_an_odd_callback_neither_hurts_nor_helps(
    af10: AF10Client, sandbox: Sandbox, fault: Fault
) -> None:
    sandbox.faults.add(fault)
    job = af10.backup_owner()
    file = await job
    await sandbox.settled()
    assert await file.read() == sandbox.archive(sandbox.jobs[0])
    assert job.state is JobState.READY


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "PUT", "DELETE"])
async def test_only_get_changes_anything(af10: AF10Client, sandbox: Sandbox, method: str) -> None:
    sandbox.faults.add(Fault.method(method, instead=True))
    job = await af10.backup_owner().start()
    await sandbox.settled()
    assert [call.status for call in sandbox.jobs[0].callbacks] == [405]
    assert job.state is JobState.ACCEPTED


async def test_a_made_up_key_is_not_found(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    url = sandbox.jobs[0].webhook_url.replace(job.key, "A" * len(job.key)) + "?id=abc"
    assert await sandbox.call_back(sandbox.jobs[0], url=url) == 404
    assert job.state is JobState.ACCEPTED


@pytest.mark.parametrize("query", ["", "?id=", "?id=a%0d%0ab", "?id=a&id=b", "?id=" + "a" * 999])
async def test_a_malformed_callback_is_a_bad_request(
    af10: AF10Client, sandbox: Sandbox, query: str
) -> None:
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    url = sandbox.jobs[0].webhook_url + query
    assert await sandbox.call_back(sandbox.jobs[0], url=url) == 400
    assert job.state is JobState.ACCEPTED


FORGED = "3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.mark.parametrize("status", [400, 410])
async def test_a_refused_secret_is_dropped_and_the_job_keeps_waiting(
    af10: AF10Client, sandbox: Sandbox, status: int
) -> None:
    sandbox.faults.add(Fault.never(), Fault.refused_secret(status))
    job = await af10.backup_owner().start()
    waiter = asyncio.create_task(job)
    assert await sandbox.call_back(sandbox.jobs[0], secret=FORGED) == 200
    while job.state is not JobState.CALLED_BACK:
        await asyncio.sleep(0)
    while job.state is JobState.CALLED_BACK:
        await asyncio.sleep(0.001)
    assert job.state is JobState.ACCEPTED
    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    await waiter


@pytest.mark.parametrize("status", [401, 403, 404, 409, 425])
async def test_a_secret_that_af10_does_not_know_does_not_hold_up_the_genuine_one(
    af10: AF10Client, sandbox: Sandbox, status: int
) -> None:
    sandbox.faults.add(Fault.never(), Fault.refused_secret(status, times=30))
    job = await af10.backup_owner().start()
    waiter = asyncio.create_task(job)
    assert await sandbox.call_back(sandbox.jobs[0], secret=FORGED) == 200
    while sandbox.count(*REDEEM) < 12:
        await asyncio.sleep(0.001)
    sandbox.faults.clear()
    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    await waiter


async def test_a_genuine_secret_that_af10_forgot_for_a_while_is_not_given_up(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    forgetful = Fault.refused_secret(404, times=None)
    with sandbox.faults.during(forgetful), pytest.raises(CallbackTimeoutError):
        await (job := af10.backup_owner(callback_timeout=0.3))
    assert sandbox.count(*REDEEM) > 8
    await job


async def test_a_refused_secret_that_comes_again_is_tried_again(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.refused_secret(410))
    job = af10.backup_owner(callback_timeout=0.3)
    with pytest.raises(CallbackTimeoutError):
        await job
    assert await sandbox.call_back(sandbox.jobs[0]) == 200
    await job


async def test_made_up_secrets_make_room_for_the_genuine_one(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    """As many as are kept, and then the genuine one."""
    sandbox.faults.add(Fault.never())
    job = await af10.backup_owner().start()
    for number in range(8):
        assert await sandbox.call_back(sandbox.jobs[0], secret=f"made-up-{number}") == 200
    assert await sandbox.call_back(sandbox.jobs[0]) == 503
    waiter = asyncio.create_task(job)
    while await sandbox.call_back(sandbox.jobs[0]) == 503:
        await asyncio.sleep(0.001)
    await waiter


async def test_a_secret_that_is_not_known_yet_is_tried_again(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.refused_secret(404, times=3))
    await af10.backup_owner()
    assert sandbox.count(*REDEEM) == 4


async def test_a_late_callback_is_kept_told_and_adopted(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    orphans: list[Orphan] = []
    sandbox.faults.add(Fault.never())
    async with make_client(on_orphan=orphans.append, callback_timeout=0.02) as af10:
        job = af10.backup_owner()
        with pytest.raises(CallbackTimeoutError) as caught:
            await job
        assert caught.value.key == job.key
        assert caught.value.start_certain
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        await asyncio.sleep(0)
        assert [orphan.key for orphan in orphans] == [job.key]
        file = await af10.job(orphans[0].key, callback_timeout=10)
        assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_an_orphan_from_before_a_restart_is_adopted_by_its_key(
    sandbox: Sandbox, tls: Tls, make_client: ClientMaker
) -> None:
    """The new process knows the callback secret, but not the job."""
    secret = "the same on every replica"
    sandbox.faults.add(Fault.never())
    async with make_client(callback_secret=secret) as before:
        key = (await before.backup_owner().start()).key
        port = int(httpx.URL(sandbox.jobs[0].webhook_url).port or 0)
    orphans: list[Orphan] = []
    async with make_client(
        callback_secret=secret, listen_port=port, on_orphan=orphans.append
    ) as after:
        with pytest.raises(JobNotFoundError):
            await after.job(key)
        assert await sandbox.call_back(sandbox.jobs[0]) == 200
        await asyncio.sleep(0)
        assert orphans == [Orphan(key, None)]
        file = await after.job(key)
        assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_on_orphan_is_not_told_of_a_job_that_is_waited_for(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    orphans: list[Orphan] = []
    async with make_client(on_orphan=orphans.append) as af10:
        job = await af10.backup_owner().start()
        await sandbox.settled()
        await job
    assert orphans == []


# -- 4. An unclear POST ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault.reset_after(on="start"),
        Fault.status(500, on="start", after=True),
        Fault.status(503, on="start", after=True, headers={"Retry-After": "0"}),
        Fault.html(502, on="start", after=True),
        Fault.html(200, on="start", after=True),
        Fault.html(202, on="start", after=True),
        Fault.huge(on="start", skip=0),
    ],
    ids=["reset", "500", "503", "html 502", "html 200", "html 202", "huge"],
)
async def test_an_unclear_post_is_never_repeated(
    make_client: ClientMaker, sandbox: Sandbox, fault: Fault
) -> None:
    """When it took effect the callback proves it; when not, the error says how it stands."""
    sandbox.faults.add(fault)
    async with make_client(callback_timeout=0.3) as af10:
        job = af10.backup_owner()
        (outcome,) = await asyncio.gather(job, return_exceptions=True)
        assert sandbox.count(*POST) == 1
    if sandbox.jobs:
        assert isinstance(outcome, RemoteFile)
    else:
        assert isinstance(outcome, CallbackTimeoutError)
        assert not outcome.start_certain
        assert outcome.key == job.key
        assert "uncertain" in str(outcome)


async def test_an_unclear_start_is_proven_by_the_callback_alone(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.reset_after(on="start"), Fault.never())
    job = af10.backup_owner()
    started = asyncio.create_task(job.start())
    while not sandbox.jobs:
        await asyncio.sleep(0.001)
    assert not started.done()
    await sandbox.call_back(sandbox.jobs[0])
    assert (await started).state is not JobState.REGISTERED
    await job
    assert sandbox.count(*POST) == 1


async def test_what_was_certainly_not_sent_is_sent_again(
    make_client: ClientMaker, sandbox: Sandbox, unused_tcp_port: int
) -> None:
    """A refused connection is tried again, and leaves no record when it stays refused."""
    async with make_client(base_url=f"http://127.0.0.1:{unused_tcp_port}/v2") as af10:
        job = af10.backup_owner()
        for _ in range(2):
            with pytest.raises(ConnectFailedError) as caught:
                await job
            assert caught.value.sent is False
            assert caught.value.key == job.key
            assert job.state is JobState.NEW
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.status(400, {"errorCode": 400}, on="start", times=None), APIError),
        (Fault.status(404, "no", on="start", times=None), APIError),
        (Fault.error_in_200(17, on="start", times=None), APIError),
        (Fault.status(500, {"errorCode": 500}, on="start", times=None), ServerError),
        (Fault.status(403, {"errorCode": 403}, on="start", times=None), AuthenticationError),
    ],
    ids=["400", "404", "errorCode", "500", "403"],
)
async def test_a_clear_refusal_is_final(
    af10: AF10Client, sandbox: Sandbox, fault: Fault, error: type[AF10Error]
) -> None:
    sandbox.faults.add(fault)
    job = af10.backup_owner()
    for _ in range(2):
        with pytest.raises(error) as caught:
            await job
        assert caught.value.key == job.key
        assert caught.value.step == "start"
    assert job.state is JobState.FAILED
    assert sandbox.count(*POST) == 1
    with pytest.raises(error):
        await af10.job(job.key)


@pytest.mark.parametrize("retry_after", ["0", "nonsense", "Wed, 21 Oct 2015 07:28:00 GMT", None])
async def test_a_busy_af10_is_asked_again(
    af10: AF10Client, sandbox: Sandbox, retry_after: str | None
) -> None:
    sandbox.faults.add(
        Fault.rate_limited(retry_after, on="start"),
        Fault.status(503, {"errorCode": 503}, on="start"),
    )
    await af10.backup_owner()
    assert sandbox.count(*POST) == 3
    assert len(sandbox.jobs) == 1


async def test_a_callback_in_the_pause_after_a_busy_answer_proves_the_start(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    """AF10 started it and said "too many requests" all the same: it is not asked again."""
    sandbox.faults.add(Fault.status(429, on="start", after=True))
    async with make_client(retries=RetryPolicy(first_pause=0.5)) as af10:
        await af10.backup_owner()
    assert sandbox.count(*POST) == len(sandbox.jobs) == 1


async def test_a_callback_in_that_pause_outlives_the_cancellation_of_its_waiter(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    sandbox.faults.add(Fault.status(429, on="start", after=True))
    async with make_client(retries=RetryPolicy(first_pause=60)) as af10:
        job = af10.backup_owner()
        waiter = asyncio.create_task(job)
        while not sandbox.jobs or not sandbox.jobs[0].callbacks:
            await asyncio.sleep(0.001)
        assert job.state is JobState.CALLED_BACK
        waiter.cancel()
        await asyncio.wait([waiter])
        assert await (await job).read() == sandbox.archive(sandbox.jobs[0])
    assert sandbox.count(*POST) == 1


async def test_an_absurd_wait_is_an_error_at_once(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.rate_limited("1000000000", on="start"))
    with pytest.raises(RateLimitError) as caught:
        await af10.backup_owner()
    assert caught.value.retry_after == 1e9
    assert sandbox.count(*POST) == 1


# -- 6. The secret is kept until the payload is safe -----------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(500, on="redeem", times=3),
        Fault.rate_limited("0", on="redeem", times=3),
        Fault.reset_before(on="redeem", times=3),
        Fault.reset_after(on="redeem", times=3),
        Fault.html(on="redeem", times=3),
        Fault.huge(on="redeem", times=2),
        Fault.encoded(on="redeem", times=2, layers=2),
        Fault.wrong_type(on="redeem", times=2),
    ],
    ids=["500", "429", "reset", "lost answer", "html", "huge", "bomb", "wrong type"],
)
async def test_redeeming_is_tried_again(af10: AF10Client, sandbox: Sandbox, fault: Fault) -> None:
    sandbox.faults.add(fault)
    file = await af10.backup_owner()
    assert await file.read() == sandbox.archive(sandbox.jobs[0])


async def test_lasting_nonsense_ends_the_wait_with_its_reason_and_the_job_lives_on(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = af10.backup_owner(callback_timeout=0.5)
    lasting = Fault.html(on="redeem", times=None)
    with sandbox.faults.during(lasting), pytest.raises(CallbackTimeoutError) as caught:
        await job
    assert caught.value.step == "redeem"
    assert isinstance(caught.value.__cause__, BadResponseError)
    assert "is not JSON" in str(caught.value)
    assert await (await job).read() == sandbox.archive(sandbox.jobs[0])
    assert sandbox.count(*POST) == 1


async def test_a_forged_secret_that_af10_chokes_on_does_not_hold_up_the_genuine_one(
    sandbox: Sandbox, make_client: ClientMaker
) -> None:
    """Whatever AF10 says of the made-up id, the genuine one gets its turn."""
    for fault in (Fault.status(500, on="redeem"), Fault.html(on="redeem")):
        sandbox.faults.add(Fault.never(), fault)
        async with make_client() as af10:
            job = await af10.backup_owner().start()
            await sandbox.call_back(sandbox.jobs[-1], secret=FORGED)
            await sandbox.call_back(sandbox.jobs[-1])
            await job


async def test_the_reason_why_a_backup_failed_is_told(af10: AF10Client, sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault.error_in_200(17, "The backup failed: disk full", on="redeem"))
    with pytest.raises(CallbackTimeoutError, match="The backup failed: disk full"):
        await af10.backup_owner(callback_timeout=0.3)


async def test_a_stale_address_is_asked_for_again(
    af10: AF10Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add(Fault.stale_file())
    file = await af10.backup_owner()
    before = file.url
    saved = await file.save(tmp_path)
    assert saved.sha256 == sandbox.archive_sha256(sandbox.jobs[0])
    assert file.url != before
    assert sandbox.count(*REDEEM) == 2


# -- tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 200])
@pytest.mark.parametrize("step", ["start", "redeem"])
async def test_a_token_that_expires_between_steps_is_renewed_once(
    af10: AF10Client, sandbox: Sandbox, step: str, status: int
) -> None:
    sandbox.faults.add(Fault.expired_token(status, on=step))  # type: ignore[arg-type]
    await af10.backup_owner()
    assert sandbox.count(*LOGIN) == 2
    assert len(sandbox.jobs) == 1


async def test_many_calls_that_meet_an_expired_token_renew_it_once(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    await af10.authenticate()
    sandbox.expire_tokens()
    await asyncio.gather(*(af10.backup_owner().start() for _ in range(100)))
    assert sandbox.count(*LOGIN) == 2
    assert len(sandbox.jobs) == 100


async def test_wrong_credentials_are_final_and_nothing_is_started(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    async with make_client(password="not the password") as af10:
        with pytest.raises(AuthenticationError) as caught:
            await af10.backup_owner()
    assert caught.value.step == "authenticate"
    assert "not the password" not in str(caught.value)
    assert [request.path for request in sandbox.requests] == ["/authenticate"]


# -- payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [{"rows": 3}, [1, 2], "text", {"url": ""}, {"url": 7}])
async def test_a_payload_that_is_not_a_file_is_an_error_that_holds_it(
    af10: AF10Client, sandbox: Sandbox, payload: object
) -> None:
    sandbox.faults.add(Fault.payload(payload))
    job = af10.backup_owner()
    with pytest.raises(UnexpectedPayloadError) as caught:
        await job
    assert caught.value.payload == payload
    assert caught.value.key == job.key


# -- accounts and servers --------------------------------------------------------------------------


async def test_many_clients_share_one_callback_server(tls: Tls) -> None:
    accounts = [Account(), Account(), Account()]
    async with (
        Sandbox(callback_ca=tls.ca, accounts=accounts) as sandbox,
        CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server,
    ):

        async def run(account: Account) -> bytes:
            async with AF10Client(
                base_url=sandbox.base_url,
                api_key=account.api_key,
                username=account.username,
                password=account.password,
                callback_server=server,
            ) as af10:
                return await (await af10.backup_owner()).read()

        files = await asyncio.gather(*map(run, accounts))
        assert server.is_running
        expected = {job.account: sandbox.archive(job) for job in sandbox.jobs}
    assert files == [expected[account.username] for account in accounts]


async def test_a_job_is_not_found_by_another_account(tls: Tls) -> None:
    mine, yours = Account(), Account()
    async with (
        Sandbox(callback_ca=tls.ca, accounts=[mine, yours]) as sandbox,
        CallbackServer(tls_cert=tls.cert, tls_key=tls.key) as server,
    ):
        clients = [
            AF10Client(
                base_url=sandbox.base_url,
                api_key=account.api_key,
                username=account.username,
                password=account.password,
                callback_server=server,
            )
            for account in (mine, yours)
        ]
        async with clients[0] as first, clients[1] as second:
            job = await first.backup_owner().start()
            with pytest.raises(JobNotFoundError, match="this account has no job"):
                await second.job(job.key)
            await job


async def test_an_orphan_is_not_spoiled_by_the_wrong_account(tls: Tls) -> None:
    """Nobody knows whose it is, so a refusal of one account drops nothing."""
    mine, yours = Account(), Account()
    secret = "the same on every replica"
    policy = RetryPolicy(first_pause=0.001, longest_pause=0.005)
    async with Sandbox(callback_ca=tls.ca, accounts=[mine, yours]) as sandbox:
        sandbox.faults.add(Fault.never())

        def client(account: Account, server: CallbackServer) -> AF10Client:
            return AF10Client(
                base_url=sandbox.base_url,
                api_key=account.api_key,
                username=account.username,
                password=account.password,
                callback_server=server,
                retries=policy,
            )

        def new_server(port: int = 0) -> CallbackServer:
            return CallbackServer(
                port=port, tls_cert=tls.cert, tls_key=tls.key, callback_secret=secret
            )

        async with new_server() as server, client(mine, server) as before:
            key = (await before.backup_owner().start()).key
            port = server.port
        async with (
            new_server(port) as server,
            client(yours, server) as wrong,
            client(mine, server) as right,
        ):
            await sandbox.call_back(sandbox.jobs[0])
            with pytest.raises(CallbackTimeoutError):
                await wrong.job(key, callback_timeout=0.2)
            await right.job(key)


@pytest.mark.parametrize("key", ["", "no key", "A" * 48, "x" * 10_000])
async def test_an_unknown_key_is_not_found(af10: AF10Client, key: str) -> None:
    with pytest.raises(JobNotFoundError):
        await af10.job(key)


async def test_a_job_needs_a_callback_server(make_client: ClientMaker, sandbox: Sandbox) -> None:
    async with make_client(tls_cert=None, tls_key=None) as af10:
        with pytest.raises(ConfigurationError, match=r"AF10_PUBLIC_URL .* is not set"):
            af10.backup_owner()
    assert sandbox.requests == []


async def test_the_webhook_url_is_https_without_a_query_and_ends_in_the_key(
    af10: AF10Client, sandbox: Sandbox
) -> None:
    job = await af10.backup_owner().start()
    url = httpx.URL(sandbox.jobs[0].webhook_url)
    assert url.scheme == "https"
    assert url.query == b""
    assert url.path.rpartition("/")[2] == job.key
    await job


@pytest.mark.parametrize("name", ["start_timeout", "callback_timeout", "download_timeout"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
async def test_a_timeout_is_a_positive_number(
    af10: AF10Client, make_client: ClientMaker, name: str, value: float
) -> None:
    with pytest.raises(ConfigurationError, match=name):
        make_client(**{name: value})
    with pytest.raises(ConfigurationError, match=name):
        af10.backup_owner(**{name: value})


async def test_an_answer_that_only_mentions_authorization_is_no_reason_to_post_again(
    make_client: ClientMaker, sandbox: Sandbox
) -> None:
    text = "Report 17 queued; mailing it is not authorized for this user"
    sandbox.faults.add(
        Fault.status(200, {"errorCode": 5012, "errorMessage": text}, on="start", after=True)
    )
    async with make_client() as af10:
        with pytest.raises(AF10Error, match="Report 17 queued"):
            await af10.backup_owner()
    assert sandbox.count("POST", "/backup/owner") == 1
