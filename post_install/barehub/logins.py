"""From a login to an account of this machine: the one rule, for every authenticator and every spawner that needs one.

An account's name is the one that the account database has for its number, not what somebody has typed: with SSSD or
winbind one account has several names, and each would be another user of the hub. A site's own function, `account_of`,
can decide otherwise. The hub makes no accounts.
"""

import contextlib
import ctypes
import pwd
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator, PAMAuthenticator
from jupyterhub.spawner import LocalProcessSpawner
from jupyterhub.traitlets import Callable
from tornado.web import HTTPError
from traitlets import Integer

from barehub.accounts import exists

NO_ACCOUNT = (
    "There is no account {} on this machine. Administrators: `getent passwd NAME` shows what the machine knows."
)

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # before JupyterHub 6

    class SpawnException(HTTPError):  # type: ignore[no-redef]  # noqa: N818 - its name there
        def __init__(self, message: str, *, reason: str) -> None:
            super().__init__(400, message)


class NoServerError(SpawnException):  # type: ignore[misc]  # JupyterHub ships no types
    """Why there is no server, in words that JupyterHub shows to its user. `kind` is a label in its metrics."""

    kind = ""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason=self.kind)
        self.jupyterhub_message = text  # which the page that shows a start's progress needs


class NoAccountError(NoServerError):
    """The user has no account on this machine."""

    kind = "account"


# Where distributions have PAM's modules.
SSSD_MODULE = ("lib*/security/pam_sss.so", "lib/*/security/pam_sss.so")


def keep_sssd_loaded() -> None:
    """Keep SSSD's PAM module in memory, if this machine has it, so that the hub does not crash when it ends.

    PAM unloads the module after each login. Up to SSSD 2.8 a thread that has used it calls it once more when it ends:
    https://github.com/SSSD/sssd/issues/6505
    """
    for module in (found for pattern in SSSD_MODULE for found in Path("/").glob(pattern)):
        with contextlib.suppress(OSError):  # it is for another kind of machine
            ctypes.CDLL(str(module))


def canonical(login: str) -> str | None:
    """Return the name of the account that a login means: the login itself, else in lower case. None: there is none."""
    for name in (login, login.lower()):
        try:
            return pwd.getpwuid(pwd.getpwnam(name).pw_uid).pw_name
        except (KeyError, ValueError):  # ValueError: a NUL, or what is no text
            continue
    return None


def require_account(name: str) -> None:
    """Raise NoAccountError if this machine has no account of that name."""
    if not exists(name):
        raise NoAccountError(NO_ACCOUNT.format(name))


def require_local_account(spawner: Any) -> None:
    """Raise NoAccountError if a spawner starts processes as an account that this machine does not have.

    It is the base configuration's `c.Spawner.pre_spawn_hook`. A site's own hook, which may make accounts, replaces it.
    A class that has its own way to become an account knows which.
    """
    if getattr(type(spawner), "make_preexec_fn", None) is LocalProcessSpawner.make_preexec_fn:
        require_account(spawner.user.name)


class AccountNames(Authenticator):  # type: ignore[misc]  # JupyterHub ships no types
    """An authenticator's other base class: users of the hub have the names of accounts of this machine."""

    account_of = Callable(
        None,
        allow_none=True,
        help="A function from a login to the name of its account; None: there is none. It is asked for accounts' names"
        " too, and must return these as they are. It may make the account. Without it, the account database decides.",
    ).tag(config=True)

    least_uid = Integer(
        1000, help="Accounts with smaller numbers are the system's: whoever can give names elsewhere gets none of them."
    ).tag(config=True)

    def normalize_username(self, username: str) -> str:
        """Return the account's name; of a login without one the name that JupyterHub would give it.

        JupyterHub asks this for each login, and for the names in allowed_users, admin_users, and the like.
        """
        name = (self.account_of or canonical)(username)
        name = name or str(super().normalize_username(username))
        return str(self.username_map.get(name, name))

    def check_blocked_users(self, username: str, authentication: Any = None) -> Any:
        """Refuse a login without an account, and the system's accounts, with a page that says so. Raises HTTPError."""
        if not (self.account_of or canonical)(username):
            raise HTTPError(403, NO_ACCOUNT.format(username))
        with contextlib.suppress(KeyError, ValueError):  # a site's own function may name what is no account here
            if pwd.getpwnam(username).pw_uid < self.least_uid:
                raise HTTPError(403, f"The account {username} is the system's, and nobody's to log in with.")
        return super().check_blocked_users(username, authentication)


class AccountPAM(AccountNames, PAMAuthenticator):  # type: ignore[misc]
    """JupyterHub's default authenticator; settings are `c.PAMAuthenticator`'s."""

    least_uid = Integer(0, help="PAM knows which accounts have a password.").tag(config=True)
