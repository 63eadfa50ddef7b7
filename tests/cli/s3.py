"""A real S3 server, as the commands are told of one."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import urllib.request
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


class S3:
    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self.bucket = f"bucket-{secrets.token_hex(8)}"
        self.secret = f"secret-{secrets.token_hex(8)}"
        self.environment = {
            "AWS_ENDPOINT": self._address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    async def state(self) -> dict[str, Any]:
        """What is in the bucket, and which requests came for it."""
        found: dict[str, Any] = json.loads(await self._ask("GET", "/_state"))
        return found

    async def begin(self) -> None:
        """Make the bucket."""
        await self._ask("PUT", f"/_rules?bucket={self.bucket}", b"[]")

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._address + path, body, method=method)

        def ask() -> bytes:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: bytes = answer.read()
                return found

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def s3_server() -> AsyncIterator[S3]:
    """The server, with a bucket."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.download.s3_server", cwd=REPOSITORY, stdout=PIPE
    )
    try:
        assert process.stdout is not None
        s3 = S3(int(await process.stdout.readline()))
        await s3.begin()
        yield s3
    finally:
        process.kill()
        await process.communicate()
