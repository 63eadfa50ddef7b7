"""The callback server behind real proxies, when anybody at all calls."""

from __future__ import annotations

from af10_async.events import CallbackReceived
from tests.callback_server.conftest import ID, key_of

from .conftest import Setting, SettingMaker, request, target
from .http2 import attack
from .proxy import PREFIX


async def test_a_wrong_key_gets_our_own_404(open_setting: Setting) -> None:
    for path in ("/af10/guessed", f"/af10/{key_of().swapcase()}", "/af10/", "/elsewhere/x", "/"):
        answer = await open_setting.ask(request(f"{PREFIX}{path}?id={ID}"))
        assert (answer.status, answer.body) == (404, b"Not Found"), path
        assert "cache-control: no-store" in answer.head

    assert await open_setting.kept() == set()


async def test_a_path_outside_of_the_prefix_does_not_reach_us(open_setting: Setting) -> None:
    for path in ("/", "/other", f"/af10/{key_of()}?id={ID}", f"/dealersaf10/{key_of()}?id={ID}"):
        answer = await open_setting.ask(request(path))
        assert answer.status == 404, path
        assert answer.body != b"Not Found", path

    assert await open_setting.kept() == set()


async def test_only_get_is_a_callback(open_setting: Setting) -> None:
    for method in ("HEAD", "POST", "PUT", "DELETE"):
        header = "Content-Length: 0"
        answer = await open_setting.ask(request(target(), header, method=method))
        assert answer.status == 405

    assert await open_setting.kept() == set()


async def test_hostile_headers_change_nothing(open_setting: Setting) -> None:
    hostile = (
        "X-Original-URL: " + target(2),
        "X-Rewrite-URL: " + target(2),
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Prefix: /af10",
        "X-HTTP-Method-Override: POST",
    )
    good = await open_setting.ask(request(target(1), *hostile))
    bad = await open_setting.ask(request(PREFIX + "/af10/guessed", *hostile))
    evil = await open_setting.ask(
        request(PREFIX + "/af10/guessed").replace(b"hooks.example.com", b"evil.example")
    )

    assert (good.status, bad.status) == (200, 404)
    assert evil.statuses == [] or b"evil" not in evil.raw
    assert await open_setting.kept() == {1}


async def test_the_caller_is_who_the_proxy_says_whatever_the_caller_writes(
    setting: Setting,
) -> None:
    """Were it appended to, what the caller writes would be believed: its network is trusted."""
    told: list[CallbackReceived] = []
    trusted = ["127.0.0.0/8"]
    claims = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "Forwarded": "for=203.0.113.9",
    }
    caller = setting.caller(local_address="127.0.0.2")
    async with setting.server(on_event=told.append, trusted_proxies=trusted), caller as client:
        assert (await client.get(target(), headers=claims)).status_code == 200

    assert [each.sender for each in told] == ["127.0.0.2"]


HIDDEN = request(target(2)).decode()
SMUGGLED = {
    "length and chunks": (
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n",
    ),
    "chunks and length": (
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(HIDDEN) + 5}",
        f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n",
    ),
    "two lengths": (f"Content-Length: 0\r\nContent-Length: {len(HIDDEN)}", HIDDEN),
    "two lengths, reversed": (f"Content-Length: {len(HIDDEN)}\r\nContent-Length: 0", HIDDEN),
    "a list of lengths": (f"Content-Length: {len(HIDDEN)}, 0", HIDDEN),
    "a plus": (f"Content-Length: +{len(HIDDEN)}", HIDDEN),
    "a space before the colon": (
        f"Content-Length: {len(HIDDEN)}\r\nTransfer-Encoding : chunked",
        HIDDEN,
    ),
    "a folded line": (
        f"Content-Length: {len(HIDDEN)}\r\nX: y\r\n Transfer-Encoding: chunked",
        HIDDEN,
    ),
    "no coding that is known": (
        f"Content-Length: {len(HIDDEN)}\r\nTransfer-Encoding: xchunked",
        HIDDEN,
    ),
    "an honest body": (f"Content-Length: {len(HIDDEN)}", HIDDEN),
    "honest chunks": (
        "Transfer-Encoding: chunked",
        f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n",
    ),
}


async def test_a_request_hidden_in_the_body_of_another_is_never_run(open_setting: Setting) -> None:
    """The proxy and we agree where each request ends, on connections that are used again."""
    for name, (headers, body) in SMUGGLED.items():
        head = f"GET {target(1)} HTTP/1.1\r\nHost: hooks.example.com\r\n{headers}\r\n\r\n"
        last = request(target(3)).decode()
        answer = await open_setting.ask((head + body + last).encode())
        assert set(answer.statuses) <= {200, 400, 413, 501}, name
        assert 2 not in await open_setting.kept(), name

    assert await open_setting.call(4) == 200
    assert 2 not in await open_setting.kept()


async def test_what_http2_can_say_and_http1_cannot_becomes_no_second_request(
    open_setting: Setting,
) -> None:
    """Lengths and codings that contradict the frames, and line ends in names, values and paths."""
    path = target(1).encode()
    plain = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"hooks.example.com"),
        (b":path", path),
    ]
    hidden = HIDDEN.encode()
    injected = b" HTTP/1.1\r\nHost: x\r\n\r\n" + hidden
    shapes = {
        "no length": ([*plain, (b"content-length", b"0")], hidden),
        "chunks": ([*plain, (b"transfer-encoding", b"chunked")], b"0\r\n\r\n" + hidden),
        "value": ([*plain, (b"x", b"y\r\n\r\n" + hidden)], b""),
        "line feed": ([*plain, (b"x", b"y\n\n" + hidden)], b""),
        "name": ([*plain, (b"x: y\r\n\r\n" + hidden, b"z")], b""),
        "path": ([*plain[:3], (b":path", path + injected)], b""),
        "method": ([(b":method", b"GET " + path + injected), *plain[1:]], b""),
    }
    for name, (headers, body) in shapes.items():
        status = await attack(open_setting.proxy.port, open_setting.trust, headers, body)
        assert status in (None, 200, 400, 405), name
        assert 2 not in await open_setting.kept(), name

    honest = await attack(open_setting.proxy.port, open_setting.trust, plain, b"")
    assert honest == 200
    assert 2 not in await open_setting.kept()


# -- logs ------------------------------------------------------------------------------------------


async def test_no_id_is_in_what_the_proxy_logs(make_setting: SettingMaker) -> None:
    """Kept, refused, malformed or unanswered: the key and the status are there, the id is not."""
    setting = await make_setting(waits=False)
    forms = (f"?id={ID}", f"&id={ID}", f"/?id={ID}", f"?x=1&id={ID}", f"%3Fid={ID}", f"%26id={ID}")
    shapes = [request(target(number, form)) for number, form in enumerate(forms, 1)]
    shapes += [request(target(), method="POST"), request(target(), f"Referer: https://x/?id={ID}")]
    shapes += [request(target(), "a b: c"), request(target(), "Transfer-Encoding: none")]
    shapes += [request(target(), "Content-Length: 20000", body=bytes(20_000))]
    shapes += [request(f"/other?id={ID}"), request(f"{PREFIX}/af10/guessed?id={ID}")]

    for shape in shapes:
        await setting.ask(shape)
    async with setting.server():
        for shape in shapes:
            await setting.ask(shape)
    await setting.proxy.stop()

    said = setting.proxy.said()
    assert key_of(1) in said
    assert " 200 " in said or '"status":200' in said
    assert " 50" in said or '"status":50' in said
    assert ID not in said
