"""Files and folders for this user alone: who else may write to them, and how that is ended."""

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
"""The bits of a mode that let anybody but the owner do anything."""

_ROOT: Final = 0


def foreign_owner(found: os.stat_result) -> str | None:
    """The user that something belongs to, if that is neither this one nor root, who can do anything anyway."""
    return None if found.st_uid in (os.geteuid(), _ROOT) else f"user {_user_name(found.st_uid)}"


def other_writers(found: os.stat_result) -> str | None:
    """Those besides this user and root who may write to a file or folder; None if nobody may."""
    if owner := foreign_owner(found):
        return owner
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    if found.st_mode & stat.S_IWGRP and not _is_group_of_one(found.st_gid):
        return f"the group {_group_name(found.st_gid)}"
    return None


def restrict_to_owner(top: Path) -> None:
    """Takes every right from others on a folder, or file, and on all that is in it; the top comes last.

    So a folder whose own mode is tight has been done whole, whatever interrupted it. Links are left alone, and not
    followed. What belongs to another user cannot be changed: a warning says so.
    """
    refused = 0
    for folder, _, files in os.walk(top, topdown=False, onerror=lambda error: _log.warning("cannot look: %s", error)):
        for path in (*(Path(folder, name) for name in files), Path(folder)):
            refused += not _tighten_one(path)
    if not top.is_dir():
        refused += not _tighten_one(top)
    if refused:
        _log.warning("others may read %s, or something in it: %d entries are not this user's to change", top, refused)


def _tighten_one(path: Path) -> bool:
    """Whether others have no rights now."""
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
    """Whether nobody but this user, or root, is known to be in a group that this process is in.

    So are the group that many systems give each user, and a number without a name that a container's platform gave.
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
