"""Sending the file, whole or in ranges, right or wrong."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import NoReturn

from aiohttp import web

from .archives import CHUNK, Archive, make_archive
from .calls import Call, error_answer, not_found
from .connection import Gone
from .faults.acts import Body, Encode, Stale, Whole
from .jobs import JobBook, Link
from .ranges import Span, Unsatisfiable, asked_span

__all__ = ["Delivery"]


class Delivery:
    """Answers the addresses of files."""

    def __init__(self, jobs: JobBook) -> None:
        self._jobs = jobs

    async def answer(self, call: Call) -> web.StreamResponse | None:
        """The answer; None when it was written by hand."""
        link = call.link
        if link is None:
            return not_found("File")
        if call.seen.method not in ("GET", "HEAD"):
            return error_answer(405, "Method not allowed")
        if isinstance(call.act, Stale) and link.refused_with() is None:
            link.stale_status = call.act.status
        refused = link.refused_with()
        if refused is not None:
            return error_answer(refused, "This address is no longer valid")
        return await self._send(call, link)

    async def _send(self, call: Call, link: Link) -> web.StreamResponse | None:
        archive = self._jobs.archive(link.job)
        if isinstance(call.act, Whole) and call.act.changed:
            archive = make_archive(archive.account + "'", archive.number, archive.size)
        headers = _headers(archive, link)
        try:
            span = _span(call, archive, headers)
        except Unsatisfiable:
            headers["Content-Range"] = f"bytes */{archive.size}"
            return web.Response(status=416, headers=headers)
        if span.partial:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{archive.size}"
        status = 206 if span.partial else 200
        if isinstance(call.act, Body):
            await _send_wrongly(call, call.act, archive, span, status, headers)
            return None
        if isinstance(call.act, Encode):
            body = gzip.compress(archive.read(span.start, span.stop), mtime=0)
            return web.Response(
                status=status, body=body, headers={**headers, "Content-Encoding": "gzip"}
            )
        return await _send_rightly(call, archive, span, status, headers)


def _headers(archive: Archive, link: Link) -> dict[str, str]:
    return {
        "Content-Type": "application/zip",
        "Content-Disposition": f'attachment; filename="{link.job.filename}"',
        "ETag": archive.etag,
        "Last-Modified": formatdate(link.job.ready_at or 0, usegmt=True),
        "Accept-Ranges": "bytes",
    }


def _span(call: Call, archive: Archive, headers: dict[str, str]) -> Span:
    asked = asked_span(call.seen.headers, archive.size, archive.etag, headers["Last-Modified"])
    match call.act:
        case Whole(partial=True) if not asked.partial:
            return Span(0, archive.size // 2, partial=True)
        case Whole(ignore_range=True):
            return Span(0, archive.size)
        case Whole(shift=shift) if shift and asked.partial:
            return replace(asked, start=min(asked.start + shift, asked.stop - 1))
        case _:
            return asked


async def _send_rightly(
    call: Call, archive: Archive, span: Span, status: int, headers: dict[str, str]
) -> web.StreamResponse:
    length = span.stop - span.start
    if length <= CHUNK and call.seen.method == "GET":
        body = archive.read(span.start, span.stop)
        return web.Response(status=status, body=body, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    try:
        await response.prepare(call.request)
        if call.seen.method == "GET":
            await _stream(call, response, archive.chunks(span.start, span.stop))
    except ConnectionError:
        raise Gone from None
    return response


async def _stream(call: Call, response: web.StreamResponse, chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        if not call.line.is_open:
            raise Gone
        await response.write(chunk)
    await response.write_eof()


async def _send_wrongly(
    call: Call, act: Body, archive: Archive, span: Span, status: int, headers: dict[str, str]
) -> None:
    length = span.stop - span.start
    if act.promised is not None:
        headers = {**headers, "Content-Length": str(max(0, length + act.promised))}
    call.line.write_head(status, headers)
    call.seen.status = status
    if call.seen.method == "GET":
        stop = span.start + _sent(act, length)
        await call.line.write_all(archive.chunks(span.start, stop, act.piece), act.pause)
    await _end(call, act)


async def _end(call: Call, act: Body) -> None:
    match act.then:
        case "close":
            call.line.close()
        case "stall":
            await call.line.hold()
        case "reset":
            await _reset(call)


async def _reset(call: Call) -> NoReturn:
    await call.line.flush()
    raise Gone


def _sent(act: Body, length: int) -> int:
    if act.sent is None:
        return length // 2
    return min(act.sent, length) if act.sent >= 0 else max(0, length + act.sent)
