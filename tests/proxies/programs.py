"""nginx, Caddy and haproxy: how each is started and reloaded, and what is different here."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .proxy import Proxy, path_of


class Nginx(Proxy):
    """Its master and one worker."""

    program, package, language = "nginx", "nginx-light", "nginx"
    stripping = ("proxy_pass http://af10;", "proxy_pass http://af10/;")
    impatience: dict[str, str] = {}  # noqa: RUF012 - never changed
    can_wait = False

    def settings(self) -> dict[str, str]:
        """Each path that Debian's nginx would use is one of ours."""
        place = self.place
        line = "    server {} max_fails=0;"
        return {
            line.format("127.0.0.1:8080"): "".join(
                line.format(f"127.0.0.1:{port}") + "\n" for port in place.behind
            ),
            "listen 443 ": f"listen 127.0.0.1:{place.port} ",
            "/etc/ssl/af10/cert.pem": str(place.cert),
            "/etc/ssl/af10/key.pem": str(place.key),
            "/var/log/nginx/": f"{self.folder}/",
        }

    def write(self) -> Path:
        """What Debian's nginx.conf says around it, as far as it matters."""
        inner = super().write()
        user = "user root;" if os.geteuid() == 0 else ""
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = "".join(f"{kind}_temp_path {self.folder}/{kind};" for kind in kinds)
        (self.folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {self.folder}/nginx.pid; worker_processes 1;\n"
            f"error_log {self.folder}/main.log notice; events {{}}\n"
            f"http {{ access_log off; {folders} include {inner}; }}\n"
        )
        return inner

    def command(self) -> list[str]:
        """In the foreground, with its own prefix."""
        log = str(self.folder / "main.log")
        return ["-e", log, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def ask_to_reload(self) -> None:
        """As `systemctl reload nginx` does."""
        self.signal(signal.SIGHUP)

    async def reload(self) -> None:
        """The new worker is there, and the old one is gone."""
        before = self.workers()
        await super().reload()
        await self.has_new_workers(before)


class Haproxy(Proxy):
    """Its master and one worker."""

    program, package, language = "haproxy", "haproxy", "haproxy"
    stripping = (
        "    retries 10 ",
        "    http-request replace-path /dealers/(.*) /\\1\n    retries 10 ",
    )
    impatience = {"    retries 10 ": "    retries 0 "}  # noqa: RUF012 - never changed

    def settings(self) -> dict[str, str]:
        """The certificate and its key in one file."""
        place = self.place
        both = self.folder / "hooks.pem"
        both.write_text(place.cert.read_text() + place.key.read_text())
        line = "    server receiver1 127.0.0.1:8080\n"
        return {
            line: "".join(
                line.replace("1 ", f"{number} ").replace("8080", str(port))
                for number, port in enumerate(place.behind, 1)
            ),
            "bind :443 ": f"bind 127.0.0.1:{place.port} ",
            "/etc/ssl/af10/hooks.pem": str(both),
        }

    def command(self) -> list[str]:
        """Master and worker, as Debian's service starts it."""
        return ["-W", "-f", str(self.folder / "documented.conf")]

    def is_ready(self, before: int) -> bool:
        """The master says so; a signal that comes while it starts would end it."""
        return b"Loading success." in (self.folder / "output.log").read_bytes()[before:]

    def ask_to_reload(self) -> None:
        """As `systemctl reload haproxy` does."""
        self.signal(signal.SIGUSR2)

    async def reload(self) -> None:
        """The new worker is there, and the old one is gone."""
        before = self.workers()
        await super().reload()
        await self.has_new_workers(before)


class Caddy(Proxy):
    """One process."""

    program, package, language = "caddy", "caddy", "caddyfile"
    stripping = ("handle /dealers/* {", "handle_path /dealers/* {")
    impatience = {"lb_try_duration 10s": "lb_try_duration 0s"}  # noqa: RUF012 - never changed

    def settings(self) -> dict[str, str]:
        """Its door for reloading is a socket in the folder."""
        place = self.place
        return {
            "{\n\tauto_https": f"{{\n\tadmin {self._door}\n\tauto_https",
            "hooks.example.com:443": f"https://hooks.example.com:{place.port}",
            "/etc/ssl/af10/cert.pem": str(place.cert),
            "/etc/ssl/af10/key.pem": str(place.key),
            "127.0.0.1:8080": " ".join(f"127.0.0.1:{port}" for port in place.behind),
        }

    @property
    def _door(self) -> str:
        return f"unix/{self.folder}/door"

    @property
    def _config(self) -> list[str]:
        return ["--adapter", "caddyfile", "--config", str(self.folder / "documented.conf")]

    def command(self) -> list[str]:
        """In the foreground."""
        return ["run", *self._config]

    def ask_to_reload(self) -> None:
        """As `systemctl reload caddy` does; it returns when that is done."""
        command = [path_of(self), "reload", "--force", "--address", self._door, *self._config]
        subprocess.run(command, env=self.environment(), check=True, capture_output=True, timeout=5)


PROXIES: tuple[type[Proxy], ...] = (Nginx, Caddy, Haproxy)
