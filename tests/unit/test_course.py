"""The example 70-course.py in a real hub: what its program and its instructor may do, and what they may not."""

from collections.abc import Iterator

import pytest

from tests.unit.real_hub import ADMIN, RealHub, log_in, start, token_of, visit, with_example

TOKEN = "5" * 32


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealHub]:
    with with_example("70-course.py", TOKEN, tmp_path_factory.mktemp("base")) as new:
        new.ask("POST", "/hub/api/users/bob", ADMIN).raise_for_status()
        yield new


def names(hub: RealHub, token: str) -> set[str]:
    answer = hub.get("/hub/api/users", token)
    answer.raise_for_status()
    return {user["name"] for user in answer.json()}


def test_the_program_starts_and_stops_the_courses_servers_alone(hub: RealHub) -> None:
    assert names(hub, TOKEN) == {"ada", "grace"}
    start(hub, "ada", TOKEN)
    assert hub.get("/hub/api/user", TOKEN).json()["name"] == "course"
    assert hub.ask("DELETE", "/hub/api/users/ada/server", TOKEN).status_code in (202, 204)
    for method, path in (
        ("POST", "/hub/api/users/bob/server"),
        ("GET", "/hub/api/users/bob"),
        ("POST", "/hub/api/users/ada/tokens"),
        ("POST", "/hub/api/users/eve"),
        ("DELETE", "/hub/api/users/ada"),
        ("GET", "/hub/api/groups"),
        ("POST", "/hub/api/shutdown"),
    ):
        assert hub.ask(method, path, TOKEN).status_code in (403, 404), path


def test_the_instructor_looks_into_the_courses_servers_alone(hub: RealHub) -> None:
    alan = token_of(hub, "alan")
    assert names(hub, alan) == {"ada", "grace"}
    for name in ("grace", "bob"):
        start(hub, name, ADMIN)
    assert visit(hub, log_in(hub, "alan"), "grace").text == "Hello alan"
    assert visit(hub, log_in(hub, "grace"), "grace").text == "Hello grace"
    assert visit(hub, log_in(hub, "alan"), "bob").status_code == 403
    assert visit(hub, log_in(hub, "ada"), "grace").status_code == 403
    for method, path in (
        ("DELETE", "/hub/api/users/grace/server"),
        ("POST", "/hub/api/users/ada/server"),
        ("GET", "/hub/api/users/bob"),
        ("POST", "/hub/api/users/grace/tokens"),
        ("PATCH", "/hub/api/users/grace"),
        ("DELETE", "/hub/api/users/grace"),
    ):
        assert hub.ask(method, path, alan, json={}).status_code in (403, 404), path
    start(hub, "alan", alan)  # their own
