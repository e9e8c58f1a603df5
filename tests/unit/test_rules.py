"""The rules file and the language of its rules, without JupyterHub and without traefik."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from barehub.rules import PAGES, PAGES_URL, READY, RulesFile, fixed_rules, move_target, quoted, read_routes, rule
from barehub.untrusted import UntrustedError

ROUTES = {"a": {"routespec": "/user/alice/", "target": "http://127.0.0.1:9", "data": {"user": "alice {{.}}"}}}


def config(routes: dict) -> dict:
    return {"http": {"routers": {"r": {"rule": "{{ .X }}"}}, "services": {}}, "jupyterhub": {"routes": routes}}


@pytest.fixture
def file(tmp_path: Path) -> RulesFile:
    (tmp_path / "rules").mkdir()
    return RulesFile(tmp_path / "rules/rules.yaml", logging.getLogger("hub"))


def test_what_is_written_is_read_again(file: RulesFile) -> None:
    assert file.load() == {}
    file.atomic_dump(config(ROUTES))
    assert file.load() == read_routes(file.path) == ROUTES
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_traefik_finds_no_template_and_no_empty_section_in_it(file: RulesFile) -> None:
    file.atomic_dump(config(ROUTES))
    text = file.path.read_text()
    assert "{{" not in text
    assert json.loads(text)["http"] == {"routers": {"r": {"rule": "{{ .X }}"}}}


def test_the_only_template_is_the_address_of_the_pages_and_it_stays_one(file: RulesFile) -> None:
    http = fixed_rules("web", None)["http"]
    http["routers"] |= config({})["http"]["routers"]
    file.atomic_dump({"http": http, "jupyterhub": {"routes": ROUTES}})
    for _ in range(2):
        text = file.path.read_text()
        assert text.count("{{") == text.count(PAGES_URL) == 1
        (server,) = json.loads(text)["http"]["services"][PAGES]["loadBalancer"]["servers"]
        assert server == {"url": PAGES_URL}
        move_target(file.path, "http://127.0.0.1:9", "http://127.0.0.1:10")
    assert read_routes(file.path)["a"]["target"] == "http://127.0.0.1:10"


@pytest.mark.parametrize("damage", ["", "[]", "[" * 200_000, '{"jupyterhub": 3}', '{"jupyterhub": "{}"}'])
def test_a_damaged_file_is_set_aside(file: RulesFile, damage: str) -> None:
    file.path.write_text(damage)
    with pytest.raises(UntrustedError):
        read_routes(file.path)
    assert file.load() == {}
    assert Path(f"{file.path}.damaged").read_text() == damage
    assert not file.path.exists()


def test_the_supervisors_question_has_a_router() -> None:
    for seconds in (None, 0):
        router = fixed_rules("web", seconds)["http"]["routers"][READY]
        assert router == {"rule": f"Path(`/{READY}`)", "entryPoints": ["web"], "service": "noop@internal"}
    assert "tls" not in fixed_rules("web", None)
    assert fixed_rules("web", 9)["tls"]["options"]["default"]["minVersion"] == "VersionTLS12"


def test_a_reader_needs_no_jupyterhub() -> None:
    program = "import barehub.rules, sys; sys.exit(any('jupyterhub' in name for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_rules_match_a_prefix_with_and_without_its_slash() -> None:
    assert rule("/") == 'PathPrefix("/")'
    assert rule("/user/a/") == '( PathPrefix("/user/a/") || Path("/user/a") )'
    assert (
        rule("/user/me%2byou%20there@x/")
        == '( PathPrefix("/user/me%2Byou there@x/") || Path("/user/me%2Byou there@x") )'
    )
    assert rule("a.example/x/") == 'Host("a.example") && ( PathPrefix("/x/") || Path("/x") )'
    assert rule("a.example/") == 'Host("a.example") && PathPrefix("/")'
    assert quoted('a"\\é') == r'"a\U00000022\U0000005c\U000000e9"'
