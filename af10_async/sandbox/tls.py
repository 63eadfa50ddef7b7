"""A certificate authority of the sandbox's own, in a temporary folder of its own."""

from __future__ import annotations

import shutil
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

__all__ = ["Authority"]

_MISSING = 'the sandbox needs the extra "sandbox": pip install "af10-async[sandbox]"'


class Authority:
    """Signs certificates; nothing is made before somebody asks for it.

    Args:
        callback_ca: A PEM file that is trusted as well when an https webhook is called.

    Raises:
        ImportError: from the methods that need `trustme`, when it is not installed.

    """

    def __init__(self, callback_ca: str | Path | None) -> None:
        self._callback_ca = callback_ca
        self._ca: trustme.CA | None = None
        self._folder: Path | None = None
        self._issued = 0
        self._trust: ssl.SSLContext | None = None

    @property
    def ca_pem(self) -> Path:
        """The file with the authority's own certificate."""
        self._made()
        return self._place() / "ca.pem"

    def issue(self, *names: str) -> tuple[Path, Path]:
        """The PEM files of a certificate chain and its key, for these host names or addresses."""
        leaf = self._made().issue_cert(*names)
        self._issued += 1
        cert = self._place() / f"{self._issued}-cert.pem"
        key = self._place() / f"{self._issued}-key.pem"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(leaf.private_key_pem.bytes())
        return cert, key

    def server_context(self, host: str) -> ssl.SSLContext:
        """TLS for a server on that host, also reached as localhost."""
        names = dict.fromkeys([host, "localhost", "127.0.0.1", "::1"])
        cert, key = self.issue(*names)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts the system, `callback_ca` and this authority; made once, as it is expensive."""
        if self._trust is None:
            self._trust = ssl.create_default_context()
            if self._callback_ca is not None:
                self._trust.load_verify_locations(cafile=self._callback_ca)
            if self._ca is not None:
                self._trust.load_verify_locations(cafile=self.ca_pem)
        return self._trust

    def close(self) -> None:
        """Remove the folder with all that was issued."""
        folder, self._folder, self._ca, self._trust = self._folder, None, None, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _made(self) -> trustme.CA:
        if self._ca is None:
            self._ca = _new_ca()
            path = self._place() / "ca.pem"
            path.write_bytes(self._ca.cert_pem.bytes())
            if self._trust is not None:  # it calls back already, and trusts this from now on
                self._trust.load_verify_locations(cafile=path)
        return self._ca

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="af10-sandbox-"))  # 0700
        return self._folder


def _new_ca() -> trustme.CA:
    try:
        import trustme
    except ImportError:
        raise ImportError(_MISSING) from None
    return trustme.CA(organization_name="AF10 sandbox")
