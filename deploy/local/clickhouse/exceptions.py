"""ClickHouse's way of failing over HTTP: a code, the status that goes with it, one text.

ClickHouseException   an answer that is an error; `str()` of it is what the client reads
"""

import re
from enum import IntEnum

__all__ = ["ClickHouseException", "Code"]


class Code(IntEnum):
    """The codes this server raises itself; every other comes from the engine."""

    NOT_IMPLEMENTED = 48
    SYNTAX_ERROR = 62
    UNKNOWN_SETTING = 115
    INCORRECT_DATA = 117
    TOO_MANY_SIMULTANEOUS_QUERIES = 202
    QUERY_IS_TOO_LARGE = 229
    INTO_OUTFILE_NOT_ALLOWED = 358
    HTTP_LENGTH_REQUIRED = 381
    AUTHENTICATION_FAILED = 516
    UNKNOWN_EXCEPTION = 1002


# ClickHouse's own table of codes and statuses (a code not named is a 500). Ours alone is 202 → 503: the queue of
# writers is full, and 503 is what tells a client to try again.
_CODES_BY_STATUS = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 497, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    501: (48,),
    503: (76, 202, 209, 439),
}
_STATUS = {code: status for status, codes in _CODES_BY_STATUS.items() for code in codes}
_MARK = re.compile(r"Code: (\d+)\. (?=DB::)")
_TAIL = re.compile(r"( \(version [^)]*\)\.?( \([A-Z_]+\))?)+$")


class ClickHouseException(Exception):
    """An answer that is an error. `code` is ClickHouse's, `status` the HTTP status ClickHouse gives for it."""

    def __init__(self, code: Code, text: str) -> None:
        self.code: int = code
        super().__init__(f"Code: {code:d}. DB::Exception: {text}. ({code.name})")

    @property
    def status(self) -> int:
        return _STATUS.get(self.code, 500)

    @classmethod
    def from_engine(cls, raised: BaseException) -> "ClickHouseException":
        """The engine's own words, with what the wheel puts around them taken off."""
        said = str(raised)
        marks = list(_MARK.finditer(said))
        if not marks:
            return cls(Code.UNKNOWN_EXCEPTION, said)
        exception = cls(Code.UNKNOWN_EXCEPTION, "")
        exception.code = int(marks[0][1])
        # Each layer of the wheel repeats `Code: N. DB::Exception:`; the innermost has the message.
        exception.args = (_TAIL.sub("", said[marks[-1].start() :].strip()),)
        return exception
