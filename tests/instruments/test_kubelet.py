"""What probes do to pods, in virtual time."""

import asyncio

import pytest
from fastapi import FastAPI, HTTPException

from companion.instruments.kubelet import (
    Answer,
    Deployment,
    Probe,
    Request,
    asgi,
    slow_start,
    watch,
)
from companion.instruments.virtual_time import virtual_now


def answering(status=200, **by_path):
    """A container that answers `by_path` ("ready" for "/ready") or with `status`."""

    async def container(path):
        answer = by_path.get(path.strip("/"), status)
        return Answer(answer() if callable(answer) else answer)

    return container


def during(begin, end, inside, outside):
    """A status that is `inside` from `begin` to `end`."""
    return lambda: inside if begin <= virtual_now() < end else outside


def one_pod(container, **probes):
    return Deployment(lambda: container, replicas=1, **probes)


# ----- readiness --------------------------------------------------------------------------------


def test_without_probes_a_pod_is_ready_at_once_and_never_restarted():
    story = watch(one_pod(answering(500)), seconds=600)
    assert (story.ready, story.restarts) == (((0.0, 0), (0.0, 1)), ())


def test_a_pod_is_ready_after_its_first_success():
    probe = Probe("/ready", period=5, initial_delay=10)
    container = answering(ready=during(0, 12, 503, 200))
    story = watch(one_pod(container, readiness=probe), seconds=60)
    assert story.first_ready() == 15


def test_it_leaves_after_three_failures_in_a_row_and_comes_back_after_one_success():
    probe = Probe("/ready", period=5)
    container = answering(ready=during(21, 61, 503, 200))
    story = watch(one_pod(container, readiness=probe), seconds=100)
    assert story.ready == ((0.0, 0), (0.0, 1), (35.0, 0), (65.0, 1))
    assert [story.ready_at(at) for at in (0, 34.9, 35, 64, 65)] == [1, 1, 0, 0, 1]


def test_failures_that_are_not_in_a_row_do_not_count():
    asked = iter([200, 503, 503, 200] * 100)
    story = watch(
        one_pod(answering(ready=lambda: next(asked)), readiness=Probe("/ready")), seconds=300
    )
    assert story.ready[-1][1] == 1


def test_several_successes_may_be_asked_for():
    probe = Probe("/ready", period=5, success_threshold=3)
    assert watch(one_pod(answering(), readiness=probe), seconds=60).first_ready() == 10


@pytest.mark.parametrize(("status", "ready"), [(200, 0), (302, 0), (400, None), (503, None)])
def test_a_probe_succeeds_from_200_to_399(status, ready):
    probed = one_pod(answering(status), readiness=Probe("/ready"))
    assert watch(probed, seconds=30).first_ready() == ready


def test_an_answer_that_comes_too_late_is_a_failure():
    async def slow(path):
        await asyncio.sleep(1.5)
        return Answer(200)

    def first_ready(timeout):
        probed = one_pod(slow, readiness=Probe("/ready", timeout=timeout))
        return watch(probed, seconds=30).first_ready()

    assert first_ready(1) is None
    assert first_ready(2) == 1.5


def test_an_unready_pod_is_not_restarted():
    story = watch(one_pod(answering(503), readiness=Probe("/ready")), seconds=600)
    assert story.restarts == ()


# ----- liveness ---------------------------------------------------------------------------------


def test_three_failures_of_liveness_restart_the_container_as_a_new_one():
    made = []

    def make():
        made.append(virtual_now())
        return answering(503) if len(made) == 1 else answering(200)

    deployment = Deployment(make, replicas=1, liveness=Probe("/live", initial_delay=30))
    story = watch(deployment, seconds=300)
    assert story.restarts == ((50.0, 0),)
    assert made == [0, 50]
    assert story.ready == ((0.0, 0), (0.0, 1), (50.0, 0), (50.0, 1))


def test_restarts_come_after_longer_and_longer_waits():
    story = watch(
        one_pod(answering(503), liveness=Probe("/live", failure_threshold=1)), seconds=1500
    )
    times = [at for at, _ in story.restarts]
    assert times == [0, 0, 10, 30, 70, 150, 310, 610, 910, 1210]


def test_a_stuck_container_is_restarted():
    async def stuck(path):
        await asyncio.Event().wait()

    assert watch(one_pod(stuck, liveness=Probe("/live")), seconds=25).restarts == ((21.0, 0),)


# ----- startup ----------------------------------------------------------------------------------


def starting(seconds, **probes):
    return Deployment(lambda: slow_start(answering(), seconds), replicas=1, **probes)


@pytest.mark.parametrize("seconds", [0, 29, 45])
def test_a_guessed_delay_is_enough_for_a_start_that_is_fast_enough(seconds):
    story = watch(starting(seconds, liveness=Probe("/live", initial_delay=30)), seconds=600)
    assert story.restarts == ()


@pytest.mark.parametrize("seconds", [51, 90])
def test_a_guessed_delay_kills_a_slower_start_for_ever(seconds):
    live, ready = Probe("/live", initial_delay=30), Probe("/ready")
    story = watch(starting(seconds, liveness=live, readiness=ready), seconds=600)
    assert story.first_ready() is None
    assert len(story.restarts) >= 5
    assert story.lost == 600


@pytest.mark.parametrize("seconds", [5, 51, 90])
def test_a_startup_probe_lets_it_start_and_notices_at_once(seconds):
    startup = Probe("/startup", period=2, failure_threshold=60)
    probes = {"liveness": Probe("/live"), "readiness": Probe("/ready")}
    story = watch(starting(seconds, startup=startup, **probes), seconds=600)
    assert story.restarts == ()
    assert seconds <= story.first_ready() <= seconds + 2


def test_a_start_that_takes_longer_than_the_startup_probe_allows_is_ended():
    startup = Probe("/startup", period=2, failure_threshold=10)
    story = watch(starting(30, startup=startup), seconds=25)
    assert story.restarts == ((18.0, 0),)


# ----- requests ---------------------------------------------------------------------------------


def test_requests_go_to_the_ready_pods_in_turn():
    story = watch(Deployment(answering, replicas=3), seconds=30)
    counts = [sum(request.pod == pod for request in story.requests) for pod in range(3)]
    assert counts == [10, 10, 10]
    assert story.lost == 0


def test_without_a_ready_pod_requests_are_lost():
    story = watch(one_pod(answering(503), readiness=Probe("/ready")), seconds=20)
    assert story.lost == 20
    assert story.requests[0] == Request(0.5, None, None)


def test_errors_of_the_server_are_lost_and_errors_of_the_client_are_not():
    assert watch(one_pod(answering(500)), seconds=10).lost == 10
    assert watch(one_pod(answering(422)), seconds=10).lost == 0


def test_the_rate_of_requests_is_a_setting():
    assert len(watch(one_pod(answering()), seconds=10, requests_per_second=2.5).requests) == 25


def test_a_client_that_waits_in_vain_has_lost():
    async def slow(path):
        await asyncio.sleep(3)
        return Answer(200)

    assert watch(one_pod(slow), seconds=5, client_timeout=2.9).lost == 5
    assert watch(one_pod(slow), seconds=5, client_timeout=3.1).lost == 0


def test_events_happen_at_their_time():
    happened = []
    watch(one_pod(answering()), seconds=60, events=[(7.5, lambda: happened.append(virtual_now()))])
    assert happened == [7.5]


def test_real_applications_are_probed_unchanged():
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> str:
        await asyncio.sleep(0.75)
        return "yes"

    @app.get("/predict")
    async def predict() -> str:
        if virtual_now() > 5:
            raise HTTPException(500)
        return "score"

    story = watch(one_pod(asgi(app), readiness=Probe("/ready")), seconds=10)
    assert story.first_ready() == 0.75
    assert story.requests[3].answer == Answer(200, '"score"')
    assert story.lost == 1 + 5  # before it was ready, and after 5 s


def test_the_same_deployment_has_the_same_story():
    def story():
        return watch(
            starting(17, liveness=Probe("/live", period=5), readiness=Probe("/r")), seconds=200
        )

    assert story() == story()


# ----- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["startup", "liveness", "readiness"])
def test_a_mistake_in_a_container_comes_out(probe):
    async def broken(path):
        raise LookupError(path)

    with pytest.raises(LookupError):
        watch(one_pod(broken, **{probe: Probe("/x", initial_delay=1)}), seconds=30)


def test_a_mistake_in_an_event_comes_out():
    with pytest.raises(ZeroDivisionError):
        watch(one_pod(answering()), seconds=30, events=[(1, lambda: 1 / 0)])


@pytest.mark.parametrize(
    "field", ["period", "timeout", "failure_threshold", "success_threshold", "initial_delay"]
)
def test_a_probe_out_of_range_is_refused_by_name(field):
    with pytest.raises(ValueError, match=f"^{field} "):
        Probe("/live", **{field: -1})


@pytest.mark.parametrize("name", ["liveness", "startup"])
def test_several_successes_are_refused_where_kubernetes_refuses_them(name):
    with pytest.raises(ValueError, match=f"^{name} needs a success_threshold of 1"):
        one_pod(answering(), **{name: Probe("/x", success_threshold=2)})


def test_a_deployment_has_a_pod():
    with pytest.raises(ValueError, match=r"^replicas"):
        Deployment(answering, replicas=0)


@pytest.mark.parametrize("settings", [{"seconds": 0}, {"seconds": 1, "requests_per_second": 0}])
def test_a_story_has_a_length_and_a_rate(settings):
    with pytest.raises(ValueError, match="positive"):
        watch(one_pod(answering()), **settings)
