"""Private files: other users with rights on files and folders, and the removal of those rights."""

import grp
import logging
import os
import pwd
import stat
from pathlib import Path
from typing import Final

__all__ = ["OTHERS", "foreign_owner", "other_writers", "restrict_to_owner"]

_log = logging.getLogger(__name__)

OTHERS: Final = 0o077
"""Bits of a mode with the rights of all users but the owner."""

_ROOT: Final = 0


def foreign_owner(found: os.stat_result) -> str | None:
    """Returns the owner of a file; None if it is this user, or root, who has all rights anyway."""
    return None if found.st_uid in (os.geteuid(), _ROOT) else f"user {_user_name(found.st_uid)}"


def other_writers(found: os.stat_result) -> str | None:
    """Returns the users, besides this one and root, who may write to a file or folder; None if there are none."""
    if owner := foreign_owner(found):
        return owner
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    if found.st_mode & stat.S_IWGRP and not _is_group_of_one(found.st_gid):
        return f"the group {_group_name(found.st_gid)}"
    return None


def restrict_to_owner(top: Path) -> None:
    """Removes all rights of others on a file, or on a folder and all its entries; the folder comes last.

    So a folder whose own mode is restricted has been processed completely. Links are neither changed nor followed.
    Entries of another user cannot be changed, which a warning says.
    """
    unchanged = 0
    for folder, _, files in os.walk(top, topdown=False, onerror=_log_unreadable):
        for path in (*(Path(folder, name) for name in files), Path(folder)):
            unchanged += not _restrict_one(path)
    if not top.is_dir():
        unchanged += not _restrict_one(top)
    if unchanged:
        _log.warning("others may read %s, or something in it: %d entries are not this user's to change", top, unchanged)


def _log_unreadable(error: OSError) -> None:
    _log.warning("a folder cannot be read: %s", error)


def _restrict_one(path: Path) -> bool:
    """Returns whether others have no rights now."""
    try:
        mode = path.lstat().st_mode
        if mode & OTHERS and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~OTHERS)
    except FileNotFoundError:  # removed in the meantime
        return True
    except OSError:
        return False
    return True


def _is_group_of_one(group_id: int) -> bool:
    """Returns whether a group of this process has no other member than this user and root.

    Many systems give each user such a group; platforms of containers give a number without a name.
    """
    if group_id not in (os.getegid(), *os.getgroups()):
        return False
    try:
        group = grp.getgrgid(group_id)
    except KeyError:
        return True
    alone = {_user_name(os.geteuid()), "root"}
    return group.gr_name in alone and alone.issuperset(group.gr_mem)


def _user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def _group_name(group_id: int) -> str:
    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)
