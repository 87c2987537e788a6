"""Becomes the command that it is given, once Linux has been asked to signal it when its parent dies.

Run as a script with -I -S: `_launch.py PARENT_PID SIGNAL USER COMMAND...`; an empty USER changes nothing.
It is a program of its own because code between fork and exec is not safe in a process with threads (gRPC has some).
The user comes first: a change of user clears the request.
"""

import ctypes
import os
import pwd
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, death_signal, user, *command = sys.argv[1:]
    if user:
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent process is gone")
    try:
        os.execv(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
