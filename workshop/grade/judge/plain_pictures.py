"""Pictures of wrong answers as plain values, on their way from the box to the judge."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from course_utils.exercises.pictures import KINDS


def to_plain(picture: Any) -> Any:
    """Nested tuples and dicts that can be sent to another process."""
    if isinstance(picture, tuple):
        return tuple(map(to_plain, picture))
    if not is_dataclass(picture):
        return picture
    return type(picture).__name__, {field.name: to_plain(getattr(picture, field.name)) for field in fields(picture)}


def from_plain(value: Any) -> Any:
    """The picture that `to_plain` was given, or None. What comes from elsewhere is looked at when it is drawn."""
    try:
        picture = _from_plain(value)
    except Exception:
        return None
    return picture if type(picture) in KINDS.values() else None


def _from_plain(value: Any) -> Any:
    if type(value) is not tuple:
        return value
    if len(value) == 2 and type(value[0]) is str and type(value[1]) is dict:
        return KINDS[value[0]](**{name: _from_plain(part) for name, part in value[1].items()})
    return tuple(map(_from_plain, value))
