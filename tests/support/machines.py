"""Machines of tests: processes with a host name and a disk of their own, by namespaces.

What tests write to their folder is on none of these disks. See decision 050.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

HOST = "shared"
"""Name by which machines reach servers of 127.0.0.1, as others would: not by `localhost`."""
# A new disk is made at /mnt, with what all machines have. Then it is put over the folder of tests.
_BEGIN = """
set -e
mount -t tmpfs none /mnt
mkdir /mnt/home /mnt/tmp
"""
_END = """
mount --bind "$hosts" /etc/hosts
mount -t tmpfs none /var/tmp
mount -t tmpfs none /dev/shm
mount --move /mnt "$base"
hostname "$name"
cd "$base/home"
exec "$@"
"""


def on_machine(
    name: str,
    command: Sequence[str],
    *,
    base: Path,
    hosts: Path,
    read_only: Mapping[str, Path] = {},
    writable: Mapping[str, Path] = {},
) -> list[str]:
    """Return a command that runs another one on a machine of its own.

    Args:
        name: Host name of the machine.
        command: The command.
        base: The folder of the tests, which it sees as an empty disk, with `home` and `tmp`.
        hosts: The machine's /etc/hosts.
        read_only: Folder in `base` -> folder of the tests that it shows.
        writable: The same, for folders that it may write.
    """
    lines = []
    for there, here in (*read_only.items(), *writable.items()):
        lines += [f"mkdir '/mnt/{there}'", f"mount --bind '{here}' '/mnt/{there}'"]
    lines += [f"mount -o remount,bind,ro '/mnt/{there}'" for there in read_only]
    script = f"{_BEGIN}name='{name}' base='{base}' hosts='{hosts}'\n" + "\n".join(lines) + _END
    return ["unshare", "--mount", "--uts", "sh", "-c", script, "sh", *command]


def disk_variables(base: Path) -> dict[str, str]:
    """Variables of the folders that a machine has."""
    return {"HOME": str(base / "home"), "TMPDIR": str(base / "tmp")}


def write_hosts(path: Path, names: Iterable[str]) -> Path:
    """Write an /etc/hosts: a name is looked up by its address, so each host has its own."""
    numbered = enumerate(("localhost", *names), start=1)
    lines = [*(f"127.0.0.{number} {name}\n" for number, name in numbered), f"127.0.0.1 {HOST}\n"]
    path.write_text("".join(lines))
    return path


def require_machines() -> None:
    """Skip the test where this machine permits no namespaces."""
    probe = ["unshare", "--mount", "--uts", "mount", "-t", "tmpfs", "none", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("NOT TESTED: pipelines on machines without a common disk, since this machine "
                    "permits no mount namespaces (they need root)")  # fmt: skip
