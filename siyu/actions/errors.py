"""What can go wrong with an operator's wish, as one small tree.

ActionsError
├── Invalid       the wish itself is malformed: a field is missing, too long or contradicts another
├── NotFound      there is no such action, pause or retry
├── Refused       it is there, and the answer is no; ``code`` says why
└── Unavailable   ClickHouse or Kafka does not answer: try again

No message quotes a customer id, a staff id or a text of a payload.
"""

from __future__ import annotations


class ActionsError(Exception):
    """Base. ``code`` is machine-readable and from a closed set; the text is for people and says what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Invalid(ActionsError):
    """The wish is malformed. ``field`` names where."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__("invalid", message)
        self.field = field


class NotFound(ActionsError):
    """Nothing has this id."""


class Refused(ActionsError):
    """It contradicts the state of the thing."""


class Unavailable(ActionsError):
    """A store does not answer. ``retry_after_s``: when asking again makes sense."""

    def __init__(self, code: str, message: str, retry_after_s: int = 5) -> None:
        super().__init__(code, message)
        self.retry_after_s = retry_after_s
