"""The role of `pipeline acls` with which each command may do its work: `ROLES`, and the next step if one may not.

A test compares the table with the command line, so that each command that talks to Kafka has its ACLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pipeline.core.permissions import Role

__all__ = ["ROLES", "grant_hint", "role_of"]

_LOCAL = None  # needs no permission in Kafka

ROLES: Mapping[str, Role | None] = {
    "new": _LOCAL,
    "demo": _LOCAL,  # starts a Kafka of its own
    "worker": Role.WORKER,
    "status": Role.STATUS,
    "ui": Role.STATUS,
    "table show": Role.INSPECT,
    "table history": Role.INSPECT,
    "journal show": Role.STATUS,
    "journal forget": Role.FORGET,
    "debug": Role.INSPECT,
    "checkpoints list": Role.INSPECT,
    "checkpoints verify": Role.INSPECT,
    "checkpoints prune": Role.INSPECT,
    "deadletters list": Role.REPLAY,
    "deadletters show": Role.REPLAY,
    "deadletters replay": Role.REPLAY,
    "deadletters discard": Role.REPLAY,
    "deadletters purge": Role.PURGE,
    "reset": Role.RESET,
    "migrate plan": Role.MIGRATE_TO,
    "migrate run": Role.MIGRATE_TO,
    "migrate switch": Role.MIGRATE_TO,
    "migrate revive": Role.MIGRATE_FROM,
    "drill list": _LOCAL,
    "drill plan": Role.DRILL,
    "drill run": Role.DRILL,
    "drill suite": Role.DRILL,
    "drill abort": _LOCAL,
    "drill undo": Role.DRILL,
    "drill proxy": _LOCAL,  # forwards what a worker sends
    "drill shadow-worker": Role.DRILL,
    "drill report list": _LOCAL,
    "drill report show": _LOCAL,
    "drill report diff": _LOCAL,
    "drill report export": _LOCAL,
    "drill report schema": _LOCAL,
    "doctor": Role.WORKER,  # run as the user of a worker
    "acls": _LOCAL,
    "topics plan": Role.TOPICS,
    "topics apply": Role.TOPICS,
    "topics set": Role.TOPICS,
    "topics export": Role.TOPICS,
    "topics list": Role.INSPECT,
    "topics show": Role.INSPECT,
    "topics schema": _LOCAL,
    "probe": _LOCAL,  # asks the HTTP port of a worker
    "produce": Role.LOAD,
    "loads list": Role.LOAD,
    "loads show": Role.LOAD,
    "consume": Role.INSPECT,
    "broker start": _LOCAL,
    "broker stop": _LOCAL,
    "broker status": _LOCAL,
    "broker logs": _LOCAL,
    "ring simulate": _LOCAL,
    "runbook": _LOCAL,
}
_APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def role_of(words: Sequence[str]) -> Role | None:
    """The role of the command with these words; None if it needs no permission."""
    for count in (3, 2, 1):
        name = " ".join(words[:count])
        if name in ROLES:
            return ROLES[name]
    return None


def grant_hint(words: Sequence[str]) -> str:
    """The next step if Kafka denies a command its work. `words`: its command line."""
    role = role_of(words)
    app = next((word for word in words if _APP.fullmatch(word)), "MODULE:APP")
    return (
        "grant this ACL to the user of this client, and run the command again: "
        f"`pipeline acls {app} --role {role or 'ROLE'}` prints all that it needs"
    )
