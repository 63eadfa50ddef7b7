"""Every kind of fault in an answer, and the plan that they stand in."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import httpx
import pytest

from af10_async.sandbox import Account, Fault
from af10_async.sandbox.faults import FaultPlan, Step

from .conftest import Wire, wired

CLOSED = (httpx.ReadError, httpx.RemoteProtocolError)


# -- the plan --------------------------------------------------------------------------------------


def test_the_first_fault_that_matches_and_has_times_left_strikes() -> None:
    """And each request meets one at most."""
    plan = FaultPlan()
    first, second = Fault.status(500, on="start"), Fault.status(503, on="start", times=2)
    plan.add(first, second)

    assert plan.take("redeem", None) is None
    assert [plan.take("start", None) for _ in range(4)] == [first, second, second, None]
    assert plan.pending == []


def test_a_fault_can_let_requests_pass_and_last_for_ever() -> None:
    """`skip` and `times=None`."""
    plan = FaultPlan()
    fault = Fault.status(500, on="file", skip=2, times=None)
    plan.add(fault)
    taken = [plan.take("file", None) for _ in range(5)]
    assert taken == [None, None, fault, fault, fault]


def test_a_fault_can_be_for_one_account() -> None:
    """Requests of others, and of nobody, pass."""
    plan = FaultPlan()
    fault = Fault.status(500, account="jan")
    plan.add(fault)
    assert [plan.take("start", name) for name in ("piet", None, "jan")] == [None, None, fault]


def test_any_means_every_request_that_arrives() -> None:
    """Unknown paths too, but not the callback, which goes out."""
    plan = FaultPlan()
    plan.add(Fault.status(500, times=None))
    assert plan.take("callback", None) is None
    assert plan.take(None, None) is not None


def test_faults_can_be_cleared_and_be_there_for_a_while() -> None:
    """`during` leaves what was there before."""
    plan = FaultPlan()
    lasting = Fault.status(500, times=None)
    with plan.during(lasting), plan.during(Fault.status(503, times=None)):
        assert len(plan.pending) == 2
    assert plan.take("start", None) is None
    plan.add(lasting)
    plan.clear()
    assert plan.pending == []


@pytest.mark.parametrize(
    ("kind", "on"),
    [
        (Fault.truncated, "start"),
        (Fault.direct, "redeem"),
        (Fault.repeats_page, "call"),
        (Fault.early, "start"),
        (Fault.hang, "callback"),
        (Fault.hang, "nonsense"),
    ],
)
def test_a_fault_for_the_wrong_step_is_refused(kind: Any, on: str) -> None:
    """When it is made, in a sentence that says why."""
    with pytest.raises(ValueError, match=r"for on=|of its own|is no step"):
        kind(on=on)


# -- answers ---------------------------------------------------------------------------------------


async def test_slow_takes_effect_after_a_while(wire: Wire) -> None:
    """Even when the client has given up by then."""
    before = asyncio.get_running_loop().time()
    wire.sandbox.faults.add(Fault.slow(0.03, on="start"))
    with pytest.raises(httpx.ReadTimeout):
        await wire.http.post(
            wire.api + "/backup/owner",
            json={"webhook_url": wire.webhook_url},
            headers={"token": wire.token},
            timeout=httpx.Timeout(5, read=0.01),
        )
    await wire.callbacks.ids.get()
    assert asyncio.get_running_loop().time() - before > 0.025
    assert len(wire.sandbox.jobs) == 1


@pytest.mark.parametrize(
    ("fault", "status", "content"),
    [
        (Fault.status(503), 503, b""),
        (Fault.status(500, "oops"), 500, b"oops"),
        (Fault.status(500, b"\0"), 500, b"\0"),
        (Fault.status(400, {"errorCode": 7}), 400, b'{"errorCode": 7}'),
        (Fault.wrong_type(), 200, b"[]"),
        (Fault.wrong_type("text"), 200, b'"text"'),
    ],
)
async def test_a_status_with_any_body(
    wire: Wire, fault: Fault, status: int, content: bytes
) -> None:
    """Instead of the true answer, once."""
    wire.sandbox.faults.add(fault)
    answer = await wire.get("/vehicle")
    assert (answer.status_code, answer.content) == (status, content)
    assert wire.sandbox.requests[-1].status == status
    assert (await wire.get("/vehicle")).json()["nextpage"] is True


@pytest.mark.parametrize("after", [True, False])
async def test_a_status_before_or_after_the_effect(wire: Wire, after: bool) -> None:
    """A 502 from something in between may come although the job was started."""
    wire.sandbox.faults.add(Fault.status(502, after=after, on="start"))
    assert (await wire.post()).status_code == 502
    assert len(wire.sandbox.jobs) == after


@pytest.mark.parametrize("text", ["1", "Wed, 21 Oct 2026 07:28:00 GMT", "soon", None])
async def test_rate_limited_says_when_to_come_back(wire: Wire, text: str | None) -> None:
    """In whatever text is asked for."""
    wire.sandbox.faults.add(Fault.rate_limited(text, on="vehicle"))
    answer = await wire.get("/vehicle")
    assert answer.status_code == 429
    assert answer.headers.get("retry-after") == text


async def test_rate_limited_can_say_it_in_the_body(wire: Wire) -> None:
    """In milliseconds, as AF10 does elsewhere, and then in no header."""
    wire.sandbox.faults.add(Fault.rate_limited(retry_after=None, retry_ms=250, on="vehicle"))
    answer = await wire.get("/vehicle")
    assert (answer.status_code, answer.json()["retry"]) == (429, 250)
    assert answer.json()["errorCode"] == 429
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    ("step", "method", "path"),
    [
        ("environment", "GET", "/util/environment"),
        ("start", "POST", "/backup/owner"),
        ("redeem", "GET", "/webhook"),
        ("vehicle", "GET", "/vehicle/1"),
        ("call", "GET", "/customer/12"),
        ("any", "GET", "/nonsense"),
    ],
)
async def test_come_back_can_strike_any_step(
    wire: Wire, step: Step, method: str, path: str
) -> None:
    """Authenticate is only where it strikes when nothing is said."""
    wire.sandbox.answers("GET", "/customer/12", {})
    wire.sandbox.faults.add(Fault.come_back(20, on=step))
    answer = await wire.send(method, path)
    assert (answer.status_code, answer.json()) == (202, {"retry": 20})
    assert wire.sandbox.faults.pending == []


async def test_a_list_can_repeat_its_first_page_for_ever(wire: Wire) -> None:
    """From some request on; one vehicle is answered as usual, and so are other queries."""
    wire.sandbox.faults.add(Fault.repeats_page(skip=1))
    first, second, ninth = [
        (await wire.get("/vehicle", page=page, sort="brand")).json() for page in (1, 2, 9)
    ]
    assert first == second == ninth
    assert first["nextpage"] is True
    assert (await wire.get("/vehicle", page=3, search="volvo")).json()["nextpage"] is True
    assert (await wire.get("/vehicle/7")).json()["data"]["vehicle_id"] == 7
    wire.sandbox.faults.clear()
    assert (await wire.get("/vehicle", page=9)).json() == {"data": [], "nextpage": False}


async def test_come_back_is_202_with_milliseconds(wire: Wire) -> None:
    """From authenticate when nothing else is said."""
    wire.sandbox.faults.add(Fault.come_back(20))
    answer = await wire.authenticate()
    assert (answer.status_code, answer.json()) == (202, {"retry": 20})
    assert (await wire.authenticate()).status_code == 200


async def test_an_error_in_200(wire: Wire) -> None:
    """As AF10 sends it now and then."""
    wire.sandbox.faults.add(Fault.error_in_200(123, "No"))
    answer = await wire.get("/vehicle")
    assert answer.status_code == 200
    assert answer.json() == {"errorCode": 123, "errorMessage": "No"}


async def test_a_page_instead_of_json(wire: Wire) -> None:
    """Such as that of a captive portal."""
    wire.sandbox.faults.add(Fault.html())
    answer = await wire.get("/vehicle")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.startswith("<!doctype html>")


async def test_huge_json(wire: Wire) -> None:
    """Valid, and of exactly the size that is asked for."""
    wire.sandbox.faults.add(Fault.huge(), Fault.huge(100))
    sizes = [len((await wire.get("/vehicle")).content) for _ in range(2)]
    assert sizes == [1024 * 1024 + 1, 100]


@pytest.mark.parametrize("layers", [1, 2])
async def test_json_that_grows_when_it_is_unpacked(wire: Wire, layers: int) -> None:
    """A small body becomes a big one."""
    wire.sandbox.faults.add(Fault.encoded(1_000_000, layers))
    headers = {"token": wire.token}
    async with wire.http.stream("GET", wire.api + "/vehicle", headers=headers) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == ", ".join(["gzip"] * layers)
    assert len(raw) < 5000
    for _ in range(layers):
        raw = gzip.decompress(raw)
    assert len(json.loads(raw)["data"]) == 1_000_000


async def test_echo_repeats_all_that_must_not_leak(wire: Wire) -> None:
    """The password in the URL, the token in a header, the body of a POST."""
    wire.sandbox.faults.add(Fault.echo(times=2))
    first = (await wire.authenticate()).json()["errorMessage"]
    second = (await wire.post()).json()["errorMessage"]
    assert wire.sandbox.password in first
    assert wire.token in second
    assert wire.webhook_url in second


@pytest.mark.parametrize(("fault", "jobs"), [(Fault.reset_before, 0), (Fault.reset_after, 1)])
async def test_a_reset_before_or_after_the_effect(wire: Wire, fault: Any, jobs: int) -> None:
    """The client cannot tell which."""
    wire.sandbox.faults.add(fault(on="start"))
    with pytest.raises(CLOSED):
        await wire.post()
    assert len(wire.sandbox.jobs) == jobs
    assert wire.sandbox.requests[-1].status is None


async def test_hang_takes_effect_and_never_answers(wire: Wire) -> None:
    """The callback comes all the same; and the sandbox notices that the client has left."""
    wire.sandbox.faults.add(Fault.hang(on="start"))
    post = asyncio.create_task(wire.post())
    assert await wire.callbacks.ids.get() == wire.sandbox.jobs[0].secret
    assert not post.done()
    post.cancel()
    await asyncio.gather(post, return_exceptions=True)


@pytest.mark.parametrize("status", [401, 200])
async def test_a_token_expires_at_a_request(wire: Wire, status: int) -> None:
    """It is refused from then on; a new one works."""
    wire.sandbox.faults.add(Fault.expired_token(status, on="vehicle"))
    answer = await wire.get("/vehicle")
    assert answer.status_code == status
    assert answer.json()["errorMessage"] == "Not authorized"
    assert (await wire.get("/vehicle")).status_code == 401
    await wire.log_in()
    assert (await wire.get("/vehicle")).status_code == 200


async def test_a_job_can_be_done_at_once(wire: Wire) -> None:
    """200 with the file, or any data, and no callback."""
    wire.sandbox.faults.add(Fault.direct(), Fault.direct({"rows": 3}))
    file, rows = await wire.post(), await wire.post()
    await wire.sandbox.settled()

    content = (await wire.http.get(file.json()["data"]["url"])).content
    assert content == wire.sandbox.archive(wire.sandbox.jobs[0])
    assert (rows.status_code, rows.json()) == (200, {"data": {"rows": 3}})
    assert wire.callbacks.calls == []


async def test_a_payload_can_be_anything(wire: Wire) -> None:
    """Not only a file."""
    wire.sandbox.faults.add(Fault.payload({"rows": 3}))
    job = await wire.start()
    assert (await wire.get("/webhook", id=job.secret)).json() == {"data": {"rows": 3}}


@pytest.mark.parametrize("status", [404, 400, 401])
async def test_a_genuine_secret_can_be_refused(wire: Wire, status: int) -> None:
    """Once, with a status of choice."""
    wire.sandbox.faults.add(Fault.refused_secret(status))
    job = await wire.start()
    answer = await wire.get("/webhook", id=job.secret)
    assert (answer.status_code, answer.json()["errorCode"]) == (status, status)
    assert (await wire.get("/webhook", id=job.secret)).status_code == 200


# -- the callback ----------------------------------------------------------------------------------


async def test_early_means_before_the_answer_to_the_post(wire: Wire) -> None:
    """The callback has been answered by then."""
    wire.sandbox.faults.add(Fault.early())
    await wire.post()
    assert [attempt.status for attempt in wire.sandbox.jobs[0].callbacks] == [200]


async def test_late_is_later_than_job_seconds(wire: Wire) -> None:
    """By so many seconds."""
    loop = asyncio.get_running_loop()
    wire.sandbox.faults.add(Fault.late(0.03))
    before = loop.time()
    job = await wire.start()
    assert loop.time() - before > 0.025
    assert len(job.callbacks) == 1


async def test_never_means_that_nobody_is_called(wire: Wire) -> None:
    """But the secret can be redeemed."""
    wire.sandbox.faults.add(Fault.never())
    job = await wire.start()
    assert job.callbacks == []
    assert (await wire.get("/webhook", id=job.secret)).status_code == 200


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.twice(), ["GET /hooks/key?id=SECRET"] * 2),
        (Fault.twice(3), ["GET /hooks/key?id=SECRET"] * 3),
        (Fault.extra_params(), ["GET /hooks/key?source=af10&id=SECRET&v=2"]),
        (Fault.extra_params({"a": "b c"}), ["GET /hooks/key?a=b+c&id=SECRET"]),
        (Fault.ampersand(), ["GET /hooks/key&id=SECRET"]),
        (Fault.trailing_slash(), ["GET /hooks/key/?id=SECRET"]),
        (Fault.method("HEAD"), ["HEAD /hooks/key?id=SECRET", "GET /hooks/key?id=SECRET"]),
        (Fault.method("POST", instead=True), ["POST /hooks/key?id=SECRET"]),
    ],
)
async def test_a_callback_of_another_form(wire: Wire, fault: Fault, expected: list[str]) -> None:
    """As AF10 might call, or somebody else."""
    wire.sandbox.faults.add(fault)
    job = await wire.start()
    calls = [
        f"{method} {path}".replace(job.secret, "SECRET") for method, path in wire.callbacks.calls
    ]
    assert calls == expected


async def test_a_forged_callback_comes_first(wire: Wire) -> None:
    """With an id that cannot be redeemed; then the genuine one."""
    wire.sandbox.faults.add(Fault.forged_first())
    job = await wire.start()
    forged, genuine = await wire.callbacks.ids.get(), await wire.callbacks.ids.get()
    assert genuine == job.secret != forged
    assert (await wire.get("/webhook", id=forged)).status_code == 404


async def test_a_callback_fault_can_be_for_one_account() -> None:
    """Others are called as usual."""
    accounts = [Account(username="one"), Account(username="two")]
    async with wired(accounts=accounts) as wire:
        wire.sandbox.faults.add(Fault.never(account="two", times=None))
        one = await wire.start()
        await wire.log_in(accounts[1])
        two = await wire.start()
        assert (len(one.callbacks), len(two.callbacks)) == (1, 0)
