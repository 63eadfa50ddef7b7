"""Faults in the file."""

from __future__ import annotations

from typing import Self, Unpack

from .acts import Body, Encode, Reply, Stale, Whole
from .base import BaseFault, When

__all__ = ["FileFaults"]


class FileFaults(BaseFault):
    """The kinds that strike the file; where bytes are counted, of the range that was asked."""

    __slots__ = ()

    @classmethod
    def stale_file(cls, status: int = 403, **when: Unpack[When]) -> Self:
        """The file's address answers 403, 404 or 410 until the secret is redeemed again."""
        return cls._of(Stale(status), "file", when)

    @classmethod
    def truncated(cls, sent: int | None = None, **when: Unpack[When]) -> Self:
        """The right length is promised, fewer bytes are sent (half), and the connection closed."""
        return cls._of(Body(sent), "file", when)

    @classmethod
    def wrong_length(cls, by: int = -10, **when: Unpack[When]) -> Self:
        """All bytes are sent, but Content-Length says `by` more (or, negative, fewer)."""
        return cls._of(Body(_ALL, promised=by), "file", when)

    @classmethod
    def stall(cls, sent: int | None = None, **when: Unpack[When]) -> Self:
        """Some bytes are sent (half), then nothing any more."""
        return cls._of(Body(sent, then="stall"), "file", when)

    @classmethod
    def no_length_cut(cls, sent: int | None = None, **when: Unpack[When]) -> Self:
        """There is no Content-Length and no chunking, and the connection is closed early."""
        return cls._of(Body(sent, promised=None), "file", when)

    @classmethod
    def no_length(cls, **when: Unpack[When]) -> Self:
        """There is no Content-Length and no chunking, but all bytes arrive."""
        return cls._of(Body(_ALL, promised=None), "file", when)

    @classmethod
    def drip(cls, piece: int = 1, seconds: float = 0.01, **when: Unpack[When]) -> Self:
        """The right bytes, `piece` at a time, with a pause after each."""
        return cls._of(Body(_ALL, piece=piece, pause=seconds), "file", when)

    @classmethod
    def reset_in_body(cls, sent: int | None = None, **when: Unpack[When]) -> Self:
        """Some bytes are sent (half), then the connection is reset."""
        return cls._of(Body(sent, then="reset"), "file", when)

    @classmethod
    def file_html(cls, **when: Unpack[When]) -> Self:
        """A web page with HTTP 200 instead of the file."""
        page = b"<!doctype html><title>Sign in</title><h1>Sign in to download</h1>"
        reply = Reply(200, {"Content-Type": "text/html; charset=utf-8"}, page)
        return cls._of(reply, "file", when)

    @classmethod
    def file_encoded(cls, **when: Unpack[When]) -> Self:
        """The file comes with `Content-Encoding: gzip`, asked or not."""
        return cls._of(Encode(), "file", when)

    @classmethod
    def file_partial(cls, **when: Unpack[When]) -> Self:
        """A plain GET is answered with 206 and the first half."""
        return cls._of(Whole(partial=True), "file", when)

    @classmethod
    def ignores_range(cls, **when: Unpack[When]) -> Self:
        """A request for a range is answered with 200 and the whole file."""
        return cls._of(Whole(ignore_range=True), "file", when)

    @classmethod
    def wrong_range(cls, shift: int = 1, **when: Unpack[When]) -> Self:
        """A request for a range is answered with one that begins `shift` bytes later."""
        return cls._of(Whole(shift=shift), "file", when)

    @classmethod
    def changed(cls, **when: Unpack[When]) -> Self:
        """The file is another one of the same size, with another ETag."""
        return cls._of(Whole(changed=True), "file", when)

    @classmethod
    def redirect(cls, location: str, status: int = 302, **when: Unpack[When]) -> Self:
        """The client is sent to another address; `on` is `file` when not given."""
        return cls._of(Reply(status, {"Location": location}), "file", when)


_ALL = 2**62
