"""The overlay `single-node`: a unit for each server, and why one does not run."""

import re

import pytest
from barehub_single_node.units import unit_name, why_not_running


def test_a_users_only_server_has_the_unit_of_the_template() -> None:
    for user in ("ada", "ada-2", "a.b_c", "ada@example.org"):
        assert unit_name(f"jupyter-{user}-singleuser", user) == f"jupyter-{user}-singleuser"


def test_each_named_server_has_a_unit_of_its_own() -> None:
    servers = [("ada", ""), ("ada", "one"), ("ada", "two"), ("ada", "o n e"), ("ada", "o-n-e"), ("ada", "singleuser")]
    servers += [("ada-singleuser", ""), ("ada-one", ""), ("ada", "é"), ("ada", "è"), ("ada", "x" * 300)]
    units = [unit_name(f"jupyter-{user}-singleuser", user, server) for user, server in servers]
    assert len(set(units)) == len(servers)
    # A template without the user's name is for a machine with one user; or two, all the same.
    assert unit_name("jupyter", "ada", "one") != unit_name("jupyter", "bob", "one")


@pytest.mark.parametrize(
    "user", ["DOM\\ada", "a b", "a:b", "a%b", "a'b", 'a"b', "a$b", "a/b", "über", "a,b", "a\tb", "a*", "d\\*,@a"]
)
@pytest.mark.parametrize("server", ["", "lab/2", "a\\b"])
def test_any_accounts_name_makes_a_unit_that_systemd_takes(user: str, server: str) -> None:
    """systemd.unit(5); and the name is part of EnvironmentFile= and RuntimeDirectory=, which read \\ % : and spaces."""
    name = unit_name(f"jupyter-{user}-singleuser", user, server)
    assert re.fullmatch(r"[A-Za-z0-9_.@-]{1,240}", name)
    assert name != unit_name(f"jupyter-{user.replace(user[-2], '-')}-singleuser", user.replace(user[-2], "-"), server)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"ActiveState": "activating"}, ""),
        ({"ActiveState": "active"}, ""),
        ({"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "203"}, "failed with exit status 203"),
        ({"ActiveState": "failed", "Result": "resources", "ExecMainStatus": "0"}, "failed: resources"),
        ({"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, "was not started"),
        ({}, "was not started"),
    ],
)
def test_a_start_that_fails_has_a_reason(properties: dict[str, str], said: str) -> None:
    why = why_not_running("jupyter-ada-singleuser", properties)
    assert said in why
    assert (why == "") is (said == "")
    if why:
        assert why.endswith("Administrators: journalctl --unit=jupyter-ada-singleuser")
