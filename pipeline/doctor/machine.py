"""Checks of this machine: the settings, the state directory, the limit on open files, the checkpoint store."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.config import KafkaSettings, is_secret
from pipeline.config.sources import properties_in, read_toml, section_of
from pipeline.core.names import GroupId, checkpoint_clock, checkpoint_prefix
from pipeline.doctor.findings import Finding, ok, problem, warning
from pipeline.ports import CheckpointStore

__all__ = ["check_disk", "check_settings", "check_store", "mount_of"]

MOUNTS = Path("/proc/self/mounts")
FREE_BYTES = 1 << 30
LEAST_FREE_BYTES = 100 << 20
CLOCK_SKEW_MS = 5_000
PROBE = b"pipeline doctor"
_MORE_ROOM = "free some space, or move the state directory (worker.state_dir) to a larger disk"

# RocksDB needs locks and durable renames, which these do not give to several hosts.
_SHARED = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.s3fs"}
)
_VOLATILE: Mapping[str, str] = {
    "tmpfs": "is in memory, and lost when the machine restarts",
    "ramfs": "is in memory, and lost when the machine restarts",
    "overlay": "is the writable layer of a container, and lost with it",
}


def check_settings(kafka: KafkaSettings, path: Path) -> Iterator[Finding]:
    """The [kafka] settings: secrets that others can read, and connections that are not protected."""
    check = "settings"
    properties = kafka.properties
    protocol = properties.get("security.protocol", "plaintext").lower()
    source = path if path.exists() else "the environment and defaults"
    yield ok(check, f"read from {source}; Kafka at {kafka.bootstrap_servers} over {protocol.upper()}")
    if _has_secrets(path) and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield warning(
            check,
            f"{path} has a password, and other users of this machine can read the file",
            f"chmod 600 {path}, or set the variable PIPELINE_KAFKA_SASL_PASSWORD instead",
        )
    if protocol == "sasl_plaintext":
        yield warning(
            check,
            "the login and all records go over the network without encryption (security.protocol=SASL_PLAINTEXT)",
            "use a listener with TLS: security.protocol=SASL_SSL (docs/how-to/security.md)",
        )
    if properties.get("enable.ssl.certificate.verification", "true").lower() == "false":
        yield warning(
            check,
            "certificates of brokers are not verified (enable.ssl.certificate.verification=false)",
            "remove the setting, and set ssl.ca.location to the certificate of your authority",
        )
    if properties.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
        yield warning(
            check,
            "host names of brokers are not verified (ssl.endpoint.identification.algorithm=none)",
            "remove the setting, and give the brokers certificates with their names",
        )


def check_disk(state_dir: Path, mounts: str | None = None) -> Iterator[Finding]:
    """The state directory: it is writable, has room, and is on a local and lasting file system.

    `mounts`: the mounted file systems, as in /proc/self/mounts, in tests.
    """
    check = "disk"
    place = next(each for each in (state_dir.absolute(), *state_dir.absolute().parents) if each.exists())
    if not place.is_dir():
        yield problem(
            check, f"{place} is not a directory", "set worker.state_dir (--state-dir) to a directory"
        )
        return
    failure = _write_failure(place)
    if failure:
        yield problem(
            check,
            f"the state directory {state_dir} cannot be written: {failure}",
            f"let this user write to {place}, or set worker.state_dir (--state-dir)",
        )
    kind, mounted_at = mount_of(place, mounts if mounts is not None else _mounts())
    if kind in _SHARED:
        yield problem(
            check,
            f"the state directory {state_dir} is on a network file system ({kind} at {mounted_at})",
            "use a local disk: states are locked and renamed as only local file systems do it",
        )
    elif kind in _VOLATILE:
        yield warning(
            check,
            f"the state directory {state_dir} {_VOLATILE[kind]} ({kind} at {mounted_at})",
            "use a persistent disk or volume: otherwise each restart restores all tasks",
        )
    usage = shutil.disk_usage(place)
    room = f"{_bytes(usage.free)} of {_bytes(usage.total)} free"
    if usage.free < LEAST_FREE_BYTES:
        yield problem(check, f"the disk of {state_dir} is full: {room}", _MORE_ROOM)
    elif usage.free < FREE_BYTES:
        yield warning(check, f"the disk of {state_dir} is almost full: {room}", _MORE_ROOM)
    elif not failure:
        state = "writable" if place == state_dir.absolute() else "does not exist yet and can be created"
        yield ok(check, f"{state_dir}: {state}, {kind or 'file system unknown'}, {room}")


def check_store(
    store: CheckpointStore, url: str, cluster_id: str, app: str, now_ms: int
) -> Iterator[Finding]:
    """Write, list, read and delete an object where the app's checkpoints are."""
    check = "checkpoint store"
    prefix = checkpoint_prefix(cluster_id, GroupId(app, "doctor"))
    name = prefix + checkpoint_clock(uuid.uuid4().bytes[:8])
    store.put(name, [PROBE], len(PROBE))
    try:
        content = b"".join(store.get(name))
        found = [each for each in store.objects(prefix) if each.name == name]
    finally:
        store.delete([name])
    if content != PROBE:
        yield problem(
            check, f"{url} returns other bytes than were written", "runbooks/checkpoint-store-unavailable.md"
        )
    elif not found:
        yield problem(
            check,
            f"{url} does not list an object that was written",
            "runbooks/checkpoint-store-unavailable.md",
        )
    elif abs(found[0].modified_ms - now_ms) > CLOCK_SKEW_MS:
        yield warning(
            check,
            f"{url} works; its clock differs from this machine's by {(found[0].modified_ms - now_ms) / 1000:+.0f} s",
            "synchronize the clocks (chronyc tracking; timedatectl)",
        )
    else:
        yield ok(check, f"{url}: an object was written, listed, read and deleted")


def mount_of(place: Path, mounts: str) -> tuple[str, str]:
    """The type of the file system and its mount point; empty texts if they are unknown."""
    best = ("", "")
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 3:
            continue
        point = words[1].encode().decode("unicode_escape")
        if place.is_relative_to(point) and len(point) >= len(best[1]):
            best = words[2], point
    return best


def _has_secrets(path: Path) -> bool:
    """Whether the settings file itself has a secret of the Kafka client, which may also be a variable."""
    section = section_of(read_toml(path, required=False), "kafka", path)
    return any(is_secret(name) for name, _ in properties_in(section))


def _mounts() -> str:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _write_failure(place: Path) -> str:
    """Why no file can be written and synced there; empty if one can."""
    probe = place / f".pipeline-doctor-{os.getpid()}"
    try:
        with probe.open("xb") as file:
            file.write(PROBE)
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _bytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"
