"""Whom a node runs as."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys

import pytest

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._identity import Identity, become, identity_of

ROOT = pwd.getpwuid(0)
NO_USER = "2147483646"

# As root a stranger is left and nobody is the same; another user can neither. All imports come first: a user who was
# dropped to may not read where the interpreter is.
DROP = """
import os
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._identity import Identity, become

own = os.geteuid() or 4321
if not os.geteuid():
    become(Identity(uid=own, gid=4322, groups=(4322, 4323)))
    assert (os.getuid(), os.geteuid(), os.getgid(), os.getegid()) == (own, own, 4322, 4322)
    assert sorted(os.getgroups()) == [4322, 4323]
become(Identity(uid=own, gid=os.getegid(), groups=(os.getegid(),)))
try:
    become(Identity(uid=0, gid=0, groups=(0,)))
except ConfigurationError as exc:
    print(exc, os.geteuid() == own)
"""


def test_names_and_numbers_mean_the_same() -> None:
    assert identity_of(ROOT.pw_name, None) == identity_of("0", None)
    assert identity_of(ROOT.pw_name, None).uid == 0
    assert ROOT.pw_gid in identity_of("0", None).groups


def test_a_group_alone_keeps_the_user() -> None:
    group = grp.getgrgid(ROOT.pw_gid)

    assert identity_of(None, group.gr_name) == Identity(uid=None, gid=group.gr_gid, groups=(group.gr_gid,))


def test_a_number_without_an_entry_needs_a_group() -> None:
    assert identity_of(NO_USER, "12") == Identity(uid=int(NO_USER), gid=12, groups=(12,))
    with pytest.raises(ConfigurationError, match="name a group with --gid too"):
        identity_of(NO_USER, None)


@pytest.mark.parametrize(
    ("user", "group", "said"),
    [
        ("no such user", None, "unknown user 'no such user'"),
        ("9" * 30, None, "unknown user '999"),
        (None, "no such group", "unknown group 'no such group'"),
    ],
)
def test_unknown_names_are_refused(user: str | None, group: str | None, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        identity_of(user, group)


def test_staying_who_one_is_is_allowed_to_everybody() -> None:
    become(Identity(uid=os.geteuid(), gid=os.getegid(), groups=()))
    become(Identity(uid=None, gid=os.getegid(), groups=()))


def test_root_is_left_for_good_and_others_are_refused_with_the_remedy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DROP], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.stderr == ""
    assert done.stdout.startswith("only root can change to user 0 and group 0, this is user ")
    assert done.stdout.endswith("start the worker as that user, or as root True\n")
