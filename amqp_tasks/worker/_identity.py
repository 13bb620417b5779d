"""The user and group that a node runs as."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from amqp_tasks.errors import ConfigurationError

__all__ = ("Identity", "become", "identity_of")

_MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom to become.

    Attributes:
        uid: user id; None keeps it.
        gid: group id.
        groups: all its groups.
    """

    uid: int | None
    gid: int
    groups: tuple[int, ...]


def identity_of(user: str | None, group: str | None) -> Identity:
    """Look the names or numbers up. A user without a group gets its own groups.

    Raises:
        ConfigurationError: no such user or group, or a number without an entry and no group beside it.
    """
    uid, entry = _user(user) if user is not None else (None, None)
    gid = _group(group) if group is not None else None
    if gid is None:
        if entry is None:
            raise ConfigurationError(
                f"user {user!r} has no entry in the user database: name a group with --gid too"
            )
        gid = entry.pw_gid
    groups = os.getgrouplist(entry.pw_name, gid) if entry is not None else [gid]
    return Identity(uid=uid, gid=gid, groups=tuple(sorted(set(groups))))


def become(wanted: Identity) -> None:
    """Drop to this user and group for good; nothing happens when this process has both already.

    Raises:
        ConfigurationError: only root may do that, or the system does not let root.
    """
    uid = os.geteuid() if wanted.uid is None else wanted.uid
    if (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (uid, uid, wanted.gid, wanted.gid):
        return
    if os.geteuid() != 0:
        raise ConfigurationError(
            f"only root can change to user {uid} and group {wanted.gid}, this is user {os.geteuid()}: start the worker"
            " as that user, or as root"
        )
    # The user last: afterwards the groups could not be changed any more.
    try:
        os.setgroups(wanted.groups)
        os.setgid(wanted.gid)
        os.setuid(uid)
    except OSError as exc:
        raise ConfigurationError(
            f"cannot change to user {uid} and group {wanted.gid}: {exc.strerror}. Does a container keep CAP_SETUID and"
            " CAP_SETGID from root?"
        ) from exc


def _user(user: str) -> tuple[int, pwd.struct_passwd | None]:
    number = _number(user)
    try:
        entry = pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
    except KeyError as exc:
        if number is not None:
            return number, None
        raise ConfigurationError(f"unknown user {user!r}") from exc
    return entry.pw_uid, entry


def _group(group: str) -> int:
    number = _number(group)
    try:
        return grp.getgrnam(group).gr_gid if number is None else number
    except KeyError as exc:
        raise ConfigurationError(f"unknown group {group!r}") from exc


def _number(text: str) -> int | None:
    """An id that is given as a number; a larger one than ids can be is taken for a name, which nobody has."""
    return int(text) if text.isdecimal() and int(text) <= _MAX_ID else None
