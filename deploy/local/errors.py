"""What can keep the local stack from starting, each with one line that says what to do.

LocalStackError
├── MissingPrerequisite   a program this machine lacks; names the package and the Docker alternative
├── PortTaken             something else listens there; names the setting that moves us
├── DataFolderInUse       another process already serves this folder
└── StartFailed           the program started and ended, or never became ready; quotes its log
"""

__all__ = ["DataFolderInUse", "LocalStackError", "MissingPrerequisite", "PortTaken", "StartFailed"]

DOCKER_ALTERNATIVE = "or run everything in containers instead: docker compose up"


class LocalStackError(Exception):
    """The local stack cannot start; the message is one line for the operator."""


class MissingPrerequisite(LocalStackError):
    def __init__(self, program: str, found: str, package: str) -> None:
        super().__init__(
            f"缺少 {program} / {program} {found}. Install it (Debian: apt-get install {package}), {DOCKER_ALTERNATIVE}"
        )


class PortTaken(LocalStackError):
    def __init__(self, what: str, host: str, port: int, setting: str) -> None:
        super().__init__(
            f"端口被占用 / {what}: port {port} on {host} is already in use. "
            f"Stop what listens there, or choose another port with {setting}"
        )


class DataFolderInUse(LocalStackError):
    def __init__(self, what: str, folder: object) -> None:
        super().__init__(
            f"数据目录正在使用 / {what}: another process already serves {folder}. "
            "Stop it first, or choose another folder with --data-dir"
        )


class StartFailed(LocalStackError):
    """The program ended before it was ready, or was not ready in time."""
