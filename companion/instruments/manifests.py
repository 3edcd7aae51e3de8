"""What a schema does not see in the probes of a Kubernetes manifest.

A schema knows the names and types of fields. That liveness may ask for one success only, that a
probe's port must be one of the container's, that two probes which ask the same question cannot have
different answers, is in the API server's own validation or in nobody's: rules, written down here.

`examine` takes a manifest as `yaml.safe_load` gives it. It is to be used beside a schema check, and
takes a manifest of the wrong shape for one without containers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Remark", "examine"]

Fields: TypeAlias = Mapping[str, Any]

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
ONLY_ONE_SUCCESS = ("startupProbe", "livenessProbe")
SCHEMES = ("HTTP", "HTTPS")
WAYS_TO_ASK = ("httpGet", "tcpSocket", "exec", "grpc")


@dataclass(frozen=True)
class Remark:
    """Something about a manifest. `is_refused`: the API server would not take it."""

    container: str
    probe: str
    says: str
    is_refused: bool = False

    def __str__(self) -> str:
        return f"{self.container}: {self.probe}: {self.says}"


def examine(manifest: Fields) -> tuple[Remark, ...]:
    """All remarks about the probes of all containers of a Pod, or of what makes pods."""
    return tuple(
        remark for container in _containers(manifest) for remark in _about_container(container)
    )


def _containers(manifest: Fields) -> list[Fields]:
    """Of a Pod, or of a Deployment and its like, or of a CronJob, which nest one level deeper."""
    spec = _part(manifest, "spec")
    while "containers" not in spec:
        deeper = _part(spec, "jobTemplate") or _part(spec, "template")
        if not deeper:
            return []
        spec = _part(deeper, "spec")
    containers = spec["containers"]
    return [c for c in containers if isinstance(c, Mapping)] if isinstance(containers, list) else []


def _about_container(container: Fields) -> Iterator[Remark]:
    name = str(container.get("name", "a container without a name"))
    startup, liveness, readiness = (_part(container, probe) for probe in PROBES)
    for probe in PROBES:
        if fields := _part(container, probe):
            yield from (
                Remark(name, probe, says, is_refused)
                for says, is_refused in _about_probe(probe, fields, container)
            )
    if not readiness:
        yield Remark(name, "readinessProbe", "missing, so requests come before it can answer")
    if liveness.get("initialDelaySeconds") and not startup:
        yield Remark(
            name,
            "startupProbe",
            "missing, and initialDelaySeconds guesses how long a start takes",
        )
    if liveness and _question(liveness) == _question(readiness):
        yield Remark(
            name,
            "livenessProbe",
            "asks the same as readinessProbe, so what should take it out of traffic restarts it",
        )


def _about_probe(probe: str, fields: Fields, container: Fields) -> Iterator[tuple[str, bool]]:
    """(what is to be said, whether the API server refuses it)"""
    successes = fields.get("successThreshold", 1)
    if probe in ONLY_ONE_SUCCESS and successes != 1:
        yield f"successThreshold must be 1, got {successes}", True
    if probe == "readinessProbe" and "terminationGracePeriodSeconds" in fields:
        yield "terminationGracePeriodSeconds must not be set: readiness ends nothing", True
    http = _part(fields, "httpGet")
    if (scheme := http.get("scheme", "HTTP")) not in SCHEMES:
        yield f"scheme must be HTTP or HTTPS, got {scheme}", True
    if isinstance(port := http.get("port"), str) and port not in _port_names(container):
        yield f"port {port!r} is none of the container's, so the probe can only fail", False
    if "timeoutSeconds" not in fields:
        yield "timeoutSeconds is not set: 1 s, whether or not that was meant", False


def _port_names(container: Fields) -> set[object]:
    ports = container.get("ports")
    return {p.get("name") for p in ports or () if isinstance(p, Mapping)}


def _question(probe: Fields) -> Fields:
    return {way: probe[way] for way in WAYS_TO_ASK if way in probe}


def _part(fields: Fields, name: str) -> Fields:
    part = fields.get(name)
    return part if isinstance(part, Mapping) else {}
