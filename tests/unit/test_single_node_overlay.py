"""The overlay `single-node`: a unit for each server, and why one does not run."""

import asyncio
import importlib
import re
import sys
from types import SimpleNamespace

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


class Base:
    """What systemdspawner is to the overlay; this one's start fails as the real one's would."""

    error: Exception

    def __init__(self, user: str) -> None:
        self.user, self.name, self.unit_name = SimpleNamespace(name=user), "", f"jupyter-{user}-singleuser"
        self.unit_extra_properties: dict[str, str] = {}
        self.start_timeout = 60
        self.cmd, self.extra_paths, self.user_options = ["jupyterhub-singleuser"], [], {}

    async def start(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("getpwnam(): name not found: 'ada'"), "There is no account ada on this machine"),
        (FileNotFoundError("no-such-command not found on /usr/bin"), "FileNotFoundError: no-such-command not found on"),
        (PermissionError(13, "Permission denied", "/run/x"), "Permission denied: '/run/x'"),
        (TypeError("expected string or bytes-like object, got 'int'"), "expected string or bytes-like object, got"),
        (KeyError("other"), "KeyError: 'other'"),
    ],
)
def test_whatever_keeps_a_server_from_starting_is_told_to_its_user(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "systemdspawner", SimpleNamespace(SystemdSpawner=Base))
    monkeypatch.delitem(sys.modules, "barehub_single_node.spawner", raising=False)
    spawner = importlib.import_module("barehub_single_node.spawner")
    monkeypatch.delitem(sys.modules, "barehub_single_node.spawner")
    monkeypatch.setattr(Base, "error", error, raising=False)
    with pytest.raises(spawner.StartError) as caught:
        asyncio.run(spawner.UnitSpawner("ada").start())
    assert said in caught.value.jupyterhub_message
