"""Lets one user traverse directories that are closed to it, by POSIX access control lists. Linux only.

PostgreSQL refuses to run as root. Under root it runs as another user, who must be able to reach the programs and the
data, also in a checkout below /root. An access control list that lets this user traverse the directories, but not list
or read them, is the smallest permission that works. The list is written to the extended attribute directly, because
``setfacl`` is rarely installed.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from pathlib import Path
from typing import Final

_ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_UNDEFINED_ID: Final = 0xFFFFFFFF
_TRAVERSE: Final = 1


def grant_traversal(target: Path, uid: int) -> bool:
    """Let user ``uid`` traverse ``target`` and its parents; return False if that is impossible.

    Directories that all users may traverse, or that belong to the user, are not changed.
    """
    return all(
        _is_traversable(directory, uid) or _grant_on_directory(directory, uid)
        for directory in (target, *target.parents)
    )


def _is_traversable(directory: Path, uid: int) -> bool:
    status = directory.stat()
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    return bool(status.st_mode & stat.S_IXOTH)


def _grant_on_directory(directory: Path, uid: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        entries = _read_acl(directory)
        granted = entries.get((_USER, uid), 0)
        if granted & entries.get((_MASK, _UNDEFINED_ID), 7) & _TRAVERSE:
            return True
        entries[_USER, uid] = granted | _TRAVERSE
        # The mask limits all entries except owner and other; it must allow the new entry and the former group bits.
        group = entries[_GROUP_OBJ, _UNDEFINED_ID]
        entries[_MASK, _UNDEFINED_ID] = entries.get((_MASK, _UNDEFINED_ID), group) | _TRAVERSE
        body = b"".join(_ENTRY.pack(tag, permissions, who) for (tag, who), permissions in sorted(entries.items()))
        os.setxattr(directory, _ATTRIBUTE, _VERSION + body)
    except OSError:
        return False
    return True


def _read_acl(directory: Path) -> dict[tuple[int, int], int]:
    """Return permissions by (tag, id). If there is no access control list, return those of the mode bits."""
    if _ATTRIBUTE in os.listxattr(directory):
        body = os.getxattr(directory, _ATTRIBUTE)[len(_VERSION) :]
        return {(tag, who): permissions for tag, permissions, who in _ENTRY.iter_unpack(body)}
    mode = directory.stat().st_mode
    bits = {_USER_OBJ: mode >> 6 & 7, _GROUP_OBJ: mode >> 3 & 7, _OTHER: mode & 7}
    return {(tag, _UNDEFINED_ID): permissions for tag, permissions in bits.items()}
