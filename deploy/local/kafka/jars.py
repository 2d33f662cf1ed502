"""The broker's jars: resolved by Maven once per content of pom.xml, kept in a cache folder, never half there.

Any number of processes may ask at once: one resolves, the others wait for it.
"""

import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from deploy.local.errors import MissingPrerequisite, StartFailed

__all__ = ["DEFAULT_CACHE", "Java", "class_archive", "kafka_version", "require_java", "resolve_jars"]

POM = Path(__file__).with_name("pom.xml")
DEFAULT_CACHE = Path.home() / ".cache" / "siyu"
OLDEST_JAVA = 17  # Kafka 4 brokers do not run on less
# A cold Maven repository on a slow line; with a warm one it takes 4 s.
RESOLVE_TIMEOUT_S = 900


def kafka_version() -> str:
    """The pinned version; pom.xml is the only place that says it."""
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    version = ElementTree.parse(POM).findtext("m:properties/m:kafka.version", namespaces=namespace)  # noqa: S314 our own file
    if version is None:
        raise StartFailed(f"{POM} has no property kafka.version")
    return version


@dataclass(frozen=True)
class Java:
    path: str
    version: str
    """As it calls itself, e.g. 17.0.15."""


def require_java() -> Java:
    """A `java` that can run the broker. Raises MissingPrerequisite."""
    java = shutil.which("java")
    package = f"openjdk-{OLDEST_JAVA}-jre-headless"
    needed = f"Java {OLDEST_JAVA}+"
    if java is None:
        raise MissingPrerequisite(needed, "is not installed (no `java` on the PATH)", package)
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "((\d+)[^"]*)"', said.stderr + said.stdout)
    if found is None or int(found[2]) < OLDEST_JAVA:
        version = found[1] if found else "unknown"
        raise MissingPrerequisite(needed, f"is needed, `java` is version {version}", package)
    return Java(java, found[1])


def resolve_jars(cache: Path = DEFAULT_CACHE) -> Path:
    """A folder with the broker's jars. Raises MissingPrerequisite without Maven, StartFailed when it cannot resolve."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    jars = cache / f"kafka-{kafka_version()}-{digest}"
    if jars.is_dir():
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.is_dir():
            _resolve_into(jars, cache)
    return jars


def class_archive(jars: Path, java: Java) -> Path:
    """Where the loaded classes of the broker are kept for this Java (see broker.train); it need not be there."""
    return jars.with_name(f"{jars.name}-java-{java.version}.jsa")


def _resolve_into(jars: Path, cache: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingPrerequisite("Maven", "is not installed (no `mvn` on the PATH)", "maven")
    with tempfile.TemporaryDirectory(dir=cache, prefix="resolving-") as folder:
        target = Path(folder) / "jars"
        arguments = ["dependency:copy-dependencies", f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
        try:
            done = subprocess.run(
                [maven, "-q", "-B", "-f", str(POM), *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=RESOLVE_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as late:
            raise StartFailed(f"Maven did not resolve {POM} within {RESOLVE_TIMEOUT_S} s") from late
        if done.returncode != 0 or not target.is_dir():
            reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stderr.strip())
            raise StartFailed(f"Maven could not resolve the Kafka jars of {POM}: {reason}")
        # A rename shows all jars at once or none, also when this process is killed while Maven copies.
        target.rename(jars)
