"""The user that PostgreSQL runs as where we are root, and folders that it, and nobody else, can use."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from pemba.dev.process import StartError

SYSTEM_USER = "embedded_postgres"


def ensure_system_user() -> None:
    """Make the system user where it is missing; two processes may do so at once."""
    if _exists():
        return
    useradd = shutil.which("useradd", path=f"{os.defpath}:/usr/sbin:/sbin")
    if useradd is None:
        raise StartError(f"PostgreSQL does not run as root: make a system user {SYSTEM_USER}, or start as another user")
    command = [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if outcome.returncode != 0 and not _exists():
        raise StartError(f"PostgreSQL does not run as root, and useradd failed: {outcome.stderr.strip()}")


def let_pass(folder: Path) -> None:
    """Let others pass through `folder` and those above it (o+x), where they could not."""
    user = pwd.getpwnam(SYSTEM_USER)
    for each in (folder.resolve(), *folder.resolve().parents):
        mode = stat.S_IMODE(each.stat().st_mode)
        if not mode & stat.S_IXOTH and each.stat().st_uid != user.pw_uid:
            each.chmod(mode | stat.S_IXOTH)


def make_private(folder: Path, user: str) -> None:
    """Make `folder` with mode 0700 for `user` (empty: us).  Raises StartError where it is someone else's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    uid, gid = _ids(user)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
            raise StartError(f"{folder} belongs to someone else; remove it, or name another data folder") from None
    folder.chmod(0o700)
    os.chown(folder, uid, gid)


def _ids(user: str) -> tuple[int, int]:
    if not user:
        return os.geteuid(), os.getegid()
    entry = pwd.getpwnam(user)
    return entry.pw_uid, entry.pw_gid


def _exists() -> bool:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return False
    return True
