"""Which offsets of one partition are done with, in any order, and up to where all of them are: only that much may be
committed. One bit an offset, so that a million finished above one slow action cost 125 kB."""

from __future__ import annotations


class OffsetTracker:
    """Offsets from ``base`` on. ``low`` is what may be committed: everything below it is done with."""

    def __init__(self, base: int) -> None:
        self.low = base
        self._start = base  # of the first byte's first bit
        self._bits = bytearray()
        self.next = base
        """One past the highest offset taken."""

    def taken(self, offset: int) -> bool:
        """Notes that this offset was read; False when it had been read before. What lies between the last one and this
        one was never a record of ours (transaction markers, aborted records): done with."""
        if offset < self.next:
            return False
        for gap in range(self.next, offset):
            self._set(gap)
        self.next = offset + 1
        return True

    def done(self, offset: int) -> None:
        """This offset is done with."""
        self._set(offset)

    @property
    def span(self) -> int:
        """Offsets read and not committable yet."""
        return self.next - self.low

    def _set(self, offset: int) -> None:
        if offset < self.low:
            return
        index = offset - self._start
        byte = index >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + 64))
        self._bits[byte] |= 1 << (index & 7)
        if offset == self.low:
            self._advance()

    def _advance(self) -> None:
        index = self.low - self._start
        bits = self._bits
        end = len(bits) << 3
        while index < end:
            byte = bits[index >> 3]
            if byte == 0xFF and index & 7 == 0:
                index += 8
            elif byte >> (index & 7) & 1:
                index += 1
            else:
                break
        self.low = self._start + index
        whole = index >> 3
        if whole > 4096:
            del bits[:whole]
            self._start += whole << 3
