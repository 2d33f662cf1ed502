"""What can be wrong with content rules: one exception, and its message names file, line and field."""

from __future__ import annotations


class ContentError(ValueError):
    """Content rules that cannot be used. The message names file, line, field and what to do about it."""
