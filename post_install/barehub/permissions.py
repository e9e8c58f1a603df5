"""Who can read the secrets of an installation, and who can change what its hub runs: what `barehub status` warns of."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from barehub import accounts
from barehub.config import code_of, config_files
from barehub.settings import Installation, Settings

# An assignment to something with such a name, or a URL with a password in it, such as a db_url.
SECRET = re.compile(
    r"""(secret|password|passwd|token|api_?key|private_?key)\w*["'\]]*\s*[=:]\s*["'][^"']+["'] | ://[^/\s:@"']+:[^/\s@"']+@""",
    re.IGNORECASE | re.VERBOSE,
)


def warnings(installation: Installation) -> list[str]:
    """Return what is wrong with the permissions of the configuration, as far as this account can see it."""
    layout, settings = installation.layout, installation.settings
    found = [changeable(path, settings) for path in (layout.config, *config_files(layout))]
    found += [exposed(path, settings) for path in config_files(layout)]
    return [warning for warning in found if warning]


def changeable(path: Path, settings: Settings) -> str:
    """Return a warning if another account than root and the hub's can change what the hub runs."""
    try:
        found = path.stat()
    except OSError:
        return ""  # `evaluate` says so
    if found.st_mode & 0o002:
        return f"everybody can change {path}, which {settings.hub_user} runs: chmod o-w {path}"
    if found.st_mode & 0o020 and (found.st_gid not in trusted_groups(settings) or accounts.has_acl(path)):
        return f"a group can change {path}, which {settings.hub_user} runs: chmod g-w {path}"
    if found.st_uid not in (0, os.geteuid()) and accounts.owner(path) != settings.hub_user:
        return f"{accounts.owner(path)} can change {path}, which {settings.hub_user} runs: chown root {path}"
    return ""


def trusted_groups(settings: Settings) -> tuple[int, ...]:
    """Return root's group, this process's own, and that of the hub's account."""
    own = (accounts.ids(settings.hub_user)[1],) if accounts.exists(settings.hub_user) else ()
    return (0, os.getegid(), *own)


def exposed(path: Path, settings: Settings) -> str:
    """Return a warning if everybody can read a file that seems to hold a secret."""
    if not everybody_reads(path) or not SECRET.search("\n".join(code_of(path))):
        return ""
    return f"everybody can read {path}, and it seems to hold a secret: {closing(path, settings)}"


def closing(path: Path, settings: Settings) -> str:
    """Return what closes a file that holds a secret of the hub's."""
    group = "root" if settings.hub_user == "root" else settings.hub_user
    return f"chown root:{group} {path}; chmod 640 {path}; and consider a new secret"


def exposed_secrets(paths: Iterable[str], settings: Settings) -> list[str]:
    """Return a warning for each file of a secret that everybody can read."""
    return [
        f"everybody can read the secret {path}: {closing(path, settings)}"
        for path in map(Path, paths)
        if everybody_reads(path)
    ]


def exposed_key(key: str) -> list[str]:
    """Return a warning if everybody can read the private key of the certificate."""
    if key and everybody_reads(Path(key)):
        return [f"everybody can read {key}: chmod 600 {key}, and consider a new key"]
    return []


def everybody_reads(path: Path) -> bool:
    """Return True if a file, and each directory that leads to it, is open to all accounts."""
    try:
        real = path.resolve()
        return bool(real.stat().st_mode & 0o004) and all(above.stat().st_mode & 0o001 for above in real.parents)
    except (OSError, RuntimeError):  # a loop of links
        return False
