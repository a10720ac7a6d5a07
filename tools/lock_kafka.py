"""Writes the lock file of the local Kafka: every jar of one Kafka release, with its size and SHA-256.

    python -m tools.lock_kafka 4.4.0                              # the release that `pipeline broker` runs
    python -m tools.lock_kafka 3.9.1 tests/kafka-3.9.lock.json    # another release, for tests
    python -m tools.lock_kafka 4.4.0 benchmarks/peers/programs/streams.lock.json streams    # Kafka Streams

The jars are resolved and downloaded into a temporary directory, so that a second run writes the same file. The sums are
those of the files that Maven's central repository serves at that moment: read the difference before you commit it.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import jgo
import msgspec

from pipeline.broker.install import LOCK_FILE, Jar

# Kafka's own binary distribution logs through log4j. This one needs no configuration file.
_LOGGING = "org.slf4j:slf4j-simple:1.7.36"
_ARTIFACTS = {
    "kafka": f"org.apache.kafka:kafka_2.13:{{version}}+{_LOGGING}",
    "streams": "org.apache.kafka:kafka-streams:{version}+com.fasterxml.jackson.core:jackson-databind:2.21.7"
    f"+{_LOGGING}",
}
_SHIPPED = Path(__file__).parents[1] / "pipeline" / "broker" / LOCK_FILE


def main(version: str, lock: Path = _SHIPPED, what: str = "kafka") -> None:
    """Write the lock file of `what` of the Kafka release `version`."""
    with tempfile.TemporaryDirectory() as scratch:
        jgo.build(_ARTIFACTS[what].format(version=version), cache_dir=Path(scratch))
        (resolved,) = Path(scratch).rglob("jgo.lock.toml")
        entries = tomllib.loads(resolved.read_text(encoding="utf-8"))["dependencies"]
        files = {path.name: path for path in resolved.parent.rglob("*.jar")}
        jars = sorted((_jar(entry, files) for entry in entries), key=lambda jar: jar.file)
    if len(jars) != len(files):
        raise SystemExit(f"jgo resolved {len(jars)} jars and downloaded {len(files)}")
    lines = ",\n".join(
        f"    {msgspec.json.format(msgspec.json.encode(jar), indent=0).decode()}" for jar in jars
    )
    text = f'{{\n  "kafka_version": "{version}",\n  "jars": [\n{lines}\n  ]\n}}\n'
    lock.write_text(text, encoding="utf-8")


def _jar(entry: dict[str, Any], files: dict[str, Path]) -> Jar:
    name = f"{entry['artifactId']}-{entry['version']}.jar"
    content = files[name].read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != entry["sha256"]:
        raise SystemExit(f"{name} was downloaded with SHA-256 {found}, not {entry['sha256']}")
    return Jar(f"{entry['groupId']}:{entry['artifactId']}:{entry['version']}", name, len(content), found)


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3, 4} or sys.argv[3:] not in ([], ["kafka"], ["streams"]):
        raise SystemExit("usage: python -m tools.lock_kafka VERSION [FILE [kafka|streams]]")
    main(sys.argv[1], Path(sys.argv[2]) if sys.argv[2:] else _SHIPPED, *sys.argv[3:])
