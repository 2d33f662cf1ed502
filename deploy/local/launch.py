"""A child started through this file dies with its parent, even when the parent is killed with SIGKILL.

Run as a script: `python -I -S launch.py PARENT_PID COMMAND...`. It asks the kernel for SIGKILL at the parent's death
(PR_SET_PDEATHSIG, Linux) and becomes COMMAND, so the pid the parent sees is COMMAND's. Elsewhere than on Linux it only
becomes COMMAND.

The kernel watches the *thread* that forked, not the process: start such children from the main thread or from one that
lives as long as the process (an event loop's thread does; a worker of a thread pool does not).
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def command(*argv: str) -> list[str]:
    """`argv` as a command line that dies with the calling process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv]


def _main() -> None:
    parent, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # The parent may have died before the request was made; then nobody would ever send the signal.
        if os.getppid() != parent:
            sys.exit(f"parent {parent} is gone")
    try:
        os.execvp(argv[0], argv)  # noqa: S606 what this file is for
    except OSError as refused:
        sys.exit(f"cannot run {argv[0]}: {refused.strerror}")


if __name__ == "__main__":
    _main()
