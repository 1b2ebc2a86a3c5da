"""Hosts on this machine for a real `ray up`, and a laptop to give commands from: hosts.sh, as a context.

Nothing here touches other processes: what is stopped is one process of ours, and the kernel ends everything inside its
namespaces with it. It ends by itself when our end of its input closes, however we end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

SCRIPT = Path(__file__).with_name("hosts.sh")
ALONE = ("--net", "--mount", "--uts", "--pid")
NEEDED = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")

SSH_SESSIONS = Path("/tmp") / f"ray_ssh_{sha256(b'root').hexdigest()[:10]}"
"""Where Ray keeps connections open, as root."""


def missing() -> str:
    """What this machine lacks for it, or nothing."""
    if os.geteuid() != 0:
        return "namespaces for hosts need root"
    if absent := [name for name in NEEDED if shutil.which(name) is None]:
        return f"not installed: {', '.join(absent)} (Debian: iproute2, openssh-server, rsync)"
    # a bridge, and mounts: what containers most often forbid
    trial = "mount -t tmpfs tmpfs /dev/shm && ip link add name bridge type bridge && ip link add name wire type veth"
    tried = subprocess.run(
        ["unshare", *ALONE, "--fork", "--mount-proc", "sh", "-c", trial], capture_output=True, text=True
    )
    return f"no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Hosts:
    """A laptop with a checkout-to-be and a key, and hosts that let this key in."""

    folder: Path
    addresses: dict[str, str]
    first_process: int
    """Of the laptop, as this machine numbers it."""

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def laptop(self) -> Path:
        """The laptop's home."""
        return self.folder / "laptop"

    def start(self, command: str, directory: Path, **environment: str) -> subprocess.Popen[str]:
        """A shell command on the laptop, in the background; its output is one text."""
        paths = f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        known = {"HOME": str(self.laptop), "PATH": paths, "TMPDIR": str(self.laptop), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            ["nsenter", f"--target={self.first_process}", *ALONE, "bash", "-c", f"cd {directory} && {command}"],
            env={**known, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str, directory: Path, timeout: float = 120, **environment: str) -> tuple[int, str]:
        """A shell command on the laptop: its exit code and output."""
        process = self.start(command, directory, **environment)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:  # what it started may live on, until all of it ends
            said = (error.stdout or b"").decode(errors="replace")
            raise AssertionError(f"{command}: no end after {timeout:g} s\n{said}") from None
        return process.returncode, output


@contextmanager
def hosts(folder: Path, *names: str) -> Iterator[Hosts]:
    """Hosts of these names; their homes are folders of the same names, in which ~/kdstudy-env is our environment."""
    for key in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    for name in ("laptop", *names):
        (folder / name).mkdir()
        (folder / name / ".bashrc").touch()
        (folder / name / "kdstudy-env").symlink_to(sys.prefix)
    alone = ["unshare", *ALONE, "--fork", "--kill-child", "--mount-proc"]
    command = [*alone, "bash", str(SCRIPT), str(folder), str(SSH_SESSIONS), *names]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outer:
        try:
            assert outer.stdout is not None
            assert outer.stdout.readline() == "ready\n", "the hosts did not start"
            first = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
            addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=11)}
            yield Hosts(folder, addresses, first)
        finally:
            outer.kill()  # and with it, by --kill-child, everything inside
            outer.wait()
            with suppress(OSError):  # where the hosts' own were mounted; not empty if it was there before
                SSH_SESSIONS.rmdir()
