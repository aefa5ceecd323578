"""A real Ray head with the job server, started and ended by the test that needs it."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from jobs import local_cluster

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 240
"""On a machine that is busy with other tests its dashboard alone has taken more than a minute."""


class Head:
    """``ray start --head`` on loopback with a token; `submit` is ``ray job submit``."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fcnh"))  # short: Ray's sockets lie in it
        port, dashboard, client, agent = _free_ports(4)
        self.address = f"http://127.0.0.1:{dashboard}"
        token = secrets.token_hex(32)
        self.environment = {
            **os.environ,
            **environment,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_SECONDS),  # Ray's default is 60
        }
        # A job that ran in this process may have left the settings of a cluster of its own.
        for name in ("RAY_ADDRESS", *(setting.name for setting in local_cluster.SETTINGS)):
            self.environment.pop(name, None)
        command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
        command += [f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=8"]
        command += [f"--ray-client-server-port={client}", f"--temp-dir={self.folder}"]
        command += [f"--dashboard-agent-listen-port={agent}", "--object-store-memory=300000000"]
        command += ["--dashboard-host=127.0.0.1", "--include-dashboard=true"]
        self.log = (self.folder / "head.log").open("w")
        self.process = subprocess.Popen(
            command,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=self.environment,
            start_new_session=True,
        )
        try:
            self._wait_until_it_takes_jobs(token)
        except BaseException:
            self.stop()
            raise

    def submit(self, *job: str, seconds: int = 500) -> subprocess.CompletedProcess[str]:
        """Submit ``python jobs/…`` with the repository as working directory, and wait for it."""
        arguments = ["--working-dir", str(ROOT), "--", sys.executable, *job]
        return self.job("submit", *arguments, seconds=seconds)

    def start(self, name: str, *job: str) -> None:
        """Submit it under a name, and do not wait."""
        arguments = ["--no-wait", "--submission-id", name, "--working-dir", str(ROOT)]
        done = self.job("submit", *arguments, "--", sys.executable, *job)
        assert done.returncode == 0, done.stdout + done.stderr

    def job(
        self, command: str, *arguments: str, seconds: int = 180
    ) -> subprocess.CompletedProcess[str]:
        """``ray job COMMAND …``; waits for the head's agent, which comes some seconds later.

        Raises RuntimeError with the head's log if it has ended.
        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            done = subprocess.run(
                [RAY, "job", command, "--address", self.address, *arguments],
                capture_output=True,
                text=True,
                timeout=seconds,
                env=self.environment,
                check=False,
            )
            if self.process.poll() is not None:
                raise RuntimeError(f"the head has ended:\n{self._said()}")
            if "No available agent" not in done.stderr or time.monotonic() > deadline:
                return done
            time.sleep(1)

    def stop(self) -> None:
        """End the head and everything it started: they are of its session."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(8)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_takes_jobs(self, token: str) -> None:
        request = urllib.request.Request(
            f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5):
                    return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    text = f"the head does not take jobs ({error}):\n{self._said()}"
                    raise RuntimeError(text) from error
                time.sleep(0.5)

    def _said(self) -> str:
        return (self.folder / "head.log").read_text()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
