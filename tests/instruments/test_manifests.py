"""What the schema of a manifest does not see."""

import copy

import pytest

from companion.instruments.manifests import Remark, examine

GOOD = {
    "name": "scoring",
    "ports": [{"name": "http", "containerPort": 8000}],
    "startupProbe": {
        "httpGet": {"path": "/health/startup", "port": "http"},
        "periodSeconds": 2,
        "timeoutSeconds": 1,
        "failureThreshold": 60,
    },
    "livenessProbe": {"httpGet": {"path": "/health/live", "port": "http"}, "timeoutSeconds": 2},
    "readinessProbe": {
        "httpGet": {"path": "/health/ready", "port": 8000, "scheme": "HTTPS"},
        "timeoutSeconds": 1,
        "successThreshold": 2,
    },
}


def deployment(*containers):
    return {"kind": "Deployment", "spec": {"template": {"spec": {"containers": list(containers)}}}}


def changed(probe, **fields):
    container = copy.deepcopy(GOOD)
    container[probe] |= fields
    return container


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def only(container):
    (remark,) = examine(deployment(container))
    assert remark.container == "scoring"
    return remark


def test_good_probes_are_passed_without_remark():
    assert examine(deployment(GOOD)) == ()


@pytest.mark.parametrize("probe", ["livenessProbe", "startupProbe"])
def test_only_readiness_may_ask_for_several_successes(probe):
    remark = only(changed(probe, successThreshold=2))
    assert remark == Remark("scoring", probe, "successThreshold must be 1, got 2", is_refused=True)


def test_another_scheme_is_refused():
    http = {"path": "/health/live", "port": "http", "scheme": "ftp"}
    remark = only(changed("livenessProbe", httpGet=http))
    assert remark.is_refused
    assert "ftp" in remark.says


def test_readiness_has_no_grace_period():
    remark = only(changed("readinessProbe", terminationGracePeriodSeconds=5))
    assert remark.is_refused


def test_a_port_by_a_name_that_the_container_lacks_is_seen():
    remark = only(changed("livenessProbe", httpGet={"path": "/health/live", "port": "htpp"}))
    assert "'htpp'" in remark.says
    assert not remark.is_refused


def test_a_probe_without_a_timeout_is_seen():
    container = copy.deepcopy(GOOD)
    del container["readinessProbe"]["timeoutSeconds"]
    remark = only(container)
    assert (remark.probe, "1 s" in remark.says) == ("readinessProbe", True)


def test_a_delay_in_the_place_of_a_startup_probe_is_seen():
    container = changed("livenessProbe", initialDelaySeconds=30)
    assert examine(deployment(container)) == ()
    del container["startupProbe"]
    assert only(container).probe == "startupProbe"


def test_liveness_that_asks_what_readiness_asks_is_seen():
    http = GOOD["readinessProbe"]["httpGet"]
    assert "restarts" in only(changed("livenessProbe", httpGet=http)).says


@pytest.mark.parametrize(("command", "remarks"), [("true", 1), ("false", 0)])
def test_so_is_one_that_runs_the_same_command(command, remarks):
    container = GOOD | {
        "livenessProbe": {"exec": {"command": ["true"]}, "timeoutSeconds": 1},
        "readinessProbe": {"exec": {"command": [command]}, "timeoutSeconds": 1},
    }
    assert len(examine(deployment(container))) == remarks


def test_a_container_without_readiness_is_seen():
    assert only(without("readinessProbe")).probe == "readinessProbe"


def test_each_container_is_looked_at_wherever_pods_are_made():
    pod = {"spec": {"containers": [without("readinessProbe"), GOOD, without("readinessProbe")]}}
    template = {"spec": {"template": pod}}
    assert [len(examine(m)) for m in (pod, template, {"spec": {"jobTemplate": template}})] == [
        2
    ] * 3


@pytest.mark.parametrize(
    "manifest", [{}, {"spec": None}, {"spec": {"containers": "x"}}, {"spec": {"template": []}}]
)
def test_what_has_no_containers_gets_no_remark(manifest):
    assert examine(manifest) == ()


def test_a_remark_reads_as_a_line():
    assert str(Remark("scoring", "livenessProbe", "is odd")) == "scoring: livenessProbe: is odd"
