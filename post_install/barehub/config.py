"""The configuration files, the order in which they are loaded, and what is wrong with one that fails."""

import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from barehub import untrusted
from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.layout import Layout
from barehub.untrusted import UntrustedError

PROXY_CLASS = "barehub.proxy.BarehubProxy"
CONFIG_EXIT = 78  # EX_CONFIG of sysexits.h: a restart would not help, and the hub's unit says so


# Settings that JupyterHub takes and that cannot be in force here, and why.
COMMAND_LINE = "is an option of jupyterhub's command line: the hub would end at once"
OTHER_PROXY = "is a setting of configurable-http-proxy, which does not run here: c.BarehubProxy has traefik's"
NOT_POSSIBLE = {
    "internal_ssl": "is not possible with this proxy",
    "reset_db": "would empty the database at every start",
    **dict.fromkeys(("generate_config", "generate_certs", "show_config", "show_config_json"), COMMAND_LINE),
}
OF_OTHER_PROXY = ("proxy_cmd", "proxy_auth_token", "proxy_api_ip", "proxy_api_port", "debug_proxy")


class ConfigError(UserError):
    """A configuration file that does not load."""


class OneLine(logging.Filter):
    """One line instead of a traceback while the hub starts: what fails then is a setting, an address, or an account."""

    starting = True

    def filter(self, record: logging.LogRecord) -> bool:
        self.starting &= not str(record.msg).startswith("JupyterHub is now running")
        error = record.exc_info and record.exc_info[1]
        if self.starting and error:
            what = record.getMessage() or "The hub does not start"
            record.msg, record.args, record.exc_info = f"{what}: {one_line(error)}", (), None
        return True


class NoNoise(logging.Filter):
    """Without requests that come every few seconds and went well, and with one line for each of the others.

    JupyterHub logs files and checks of its health where they have taken a second (jupyterhub/log.py), all headers of a
    request that has failed with 500, and each visitor's first cookie (jupyterhub/_xsrf_utils.py).
    """

    NOISE = re.compile(
        r"200 (?:GET|HEAD) [^\s?]*/hub/(?:health|static/[^\s?]*|(?:api/)?metrics)[ ?]|\{\n|Setting new xsrf cookie for "
    )

    def filter(self, record: logging.LogRecord) -> bool:
        return self.NOISE.match(str(record.msg)) is None


def one_line(error: BaseException) -> str:
    """Return an exception as `TYPE: TEXT`, without a dictionary at its end: a service's may hold a token."""
    text = " ".join(str(error).partition("{")[0].split())
    return f"{type(error).__name__}: {text[:300]}"


def config_files(layout: Layout) -> list[Path]:
    """Return the *.py files that make up the configuration, in load order.

    They come from two directories, the active release's and BASE/jupyterhub_config.d, sorted by name over both; a
    file in BASE masks the release's of the same name, as with systemd's drop-ins (systemd.unit(5)). Hidden files, which
    editors leave, and directories are no configuration. Raises ConfigError if a directory cannot be read.
    """
    by_name = {path.name: path for directory in config_directories(layout) for path in python_files(directory)}
    return [by_name[name] for name in sorted(by_name)]


def config_directories(layout: Layout) -> tuple[Path, Path]:
    """Return the directories of configuration files; the second one's come before the first one's of the same name."""
    return layout.share / "jupyterhub_config.d", layout.config


def python_files(directory: Path) -> list[Path]:
    """Return a directory's configuration files. A link that leads nowhere is one: what it should lead to is missing."""
    try:
        found = list(directory.iterdir())
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise ConfigError(*unreadable(directory)) from error
    return [
        path
        for path in found
        if path.suffix == ".py" and not path.name.startswith(".") and (path.is_symlink() or path.is_file())
    ]


def masked_files(layout: Layout) -> list[Path]:
    """Return the release's files that are not loaded because BASE has a file of the same name."""
    used = config_files(layout)
    return [path for path in python_files(config_directories(layout)[0]) if path not in used]


def load_files(layout: Layout, config: Any, load_subconfig: Callable[..., None]) -> None:
    """Run every configuration file with `c` bound to `config`, a traitlets Config, so that each sees earlier ones.

    Raises ConfigError with the file and the line, also for a setting that this proxy cannot put in force.
    """
    for path in config_files(layout):
        names = {
            "c": config,
            "get_config": lambda: config,
            "load_subconfig": load_subconfig,
            "__file__": str(path),
        }
        try:
            exec(compile(path.read_bytes(), str(path), "exec"), names)  # noqa: S102 - what a .py configuration is
        except (Exception, SystemExit) as error:
            raise ConfigError(*explain(path, error)) from error
    require_possible(layout, config)


def require_possible(layout: Layout, config: Any) -> None:
    """Raises ConfigError, with the place, for a setting that cannot be in force here."""
    hub = config.JupyterHub
    found = {f"JupyterHub.{name}": why for name, why in NOT_POSSIBLE.items() if hub.get(name)}
    if hub.get("proxy_class") == PROXY_CLASS:
        found |= {f"JupyterHub.{name}": OTHER_PROXY for name in OF_OTHER_PROXY if hub.get(name)}
        found |= {f"ConfigurableHTTPProxy.{name}": OTHER_PROXY for name in config.ConfigurableHTTPProxy}
    for name, why in found.items():
        raise ConfigError(
            f"{place_of(layout, name.partition('.')[2])}c.{name} {why}", "remove it, then restart the hub"
        )


def explain(path: Path, error: BaseException) -> tuple[str, str]:
    """Return `path, line 3: NameError: ...`, with the deepest line of this file in the traceback; and what to do."""
    if isinstance(error, PermissionError) and error.filename == str(path):
        return unreadable(path)
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    place = f"{path}{f', line {line}' if line else ''}"
    if isinstance(error, UserError):
        return f"{place}: {error}", error.fix
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    what = f"{place}: {what}"
    if isinstance(error, PermissionError) and error.filename:
        return f"{what}: the account {current_user()} may not", f"let it: ls -ld {error.filename}; then restart the hub"
    if isinstance(error, ImportError) and (hidden := hidden_packages()):
        return because_hidden(what, hidden)
    return what, "fix that file, then restart the hub"


def unreadable(path: Path) -> tuple[str, str]:
    """Return that this account cannot read a file or directory of the configuration, and what to do."""
    user = current_user()
    what = f"{path} cannot be read by the account {user}"
    return what, f"chown root:GROUP {path}; chmod g+rX {path}, with a group of {user}'s; or chmod a+rX {path}"


def hidden_packages() -> list[Path]:
    """Return what is installed in this release, but cannot be read by this account: pip obeys root's umask."""
    hidden: list[Path] = []
    for site in {Path(entry) for entry in sys.path if entry.endswith("-packages")}:
        for directory, names, files in os.walk(site):
            closed = [name for name in names if not os.access(f"{directory}/{name}", os.R_OK | os.X_OK)]
            closed += [name for name in files if not os.access(f"{directory}/{name}", os.R_OK)]
            hidden += [Path(directory, name) for name in closed]
    return sorted(hidden)


def because_hidden(what: str, hidden: list[Path]) -> tuple[str, str]:
    """Return a complaint about an import with the permissions that explain it, and what to do."""
    site = next(path for path in (hidden[0], *hidden[0].parents) if path.name.endswith("-packages"))
    return (
        f"{what.rstrip('.')}: the account {current_user()} may not read {hidden[0]}",
        f"chmod -R a+rX {site}; and `umask 022` before `pip install`",
    )


def code_of(path: Path) -> list[str]:
    """Return the lines of a configuration file, comments as empty ones; none if this account cannot read it."""
    try:
        lines = untrusted.read_bytes(path, follow=True).decode(errors="replace").splitlines()
    except (OSError, UntrustedError):
        return []
    return ["" if line.lstrip().startswith("#") else line for line in lines]


def place_of(layout: Layout, *traits: str) -> str:
    """Return `path, line 3: ` for the line that sets the first of these traits that is set, the last such line.

    As far as the text tells; empty if none is set.
    """
    files = [(path, code_of(path)) for path in reversed(config_files(layout))]
    for trait in traits:
        setting = re.compile(rf"^[^#]*\.{re.escape(trait)}\b\s*[.=\[]")
        for path, lines in files:
            for number in range(len(lines), 0, -1):
                if setting.match(lines[number - 1]):
                    return f"{path}, line {number}: "
    return ""


def located(layout: Layout, what: str) -> str:
    """Return what is wrong with a setting, `c.JupyterHub.bind_url is ...`, with the place that sets it.

    If it is not written like that, the place is that of the first setting whose name is in the text. A text that begins
    with a place has one.
    """
    if any(what.startswith(f"{directory}/") for directory in config_directories(layout)):
        return what
    setting = re.match(r"c\.\w+\.(\w+) ", what)
    names = [setting[1]] if setting else re.findall(r"\w{5,}", what)
    return place_of(layout, *names) + what


def leave_out_grammars() -> None:
    """Make the import of JupyterHub take half of its time, while clients wait, in a process that validates nothing.

    JupyterHub imports jsonschema, which builds the grammars of rfc3987_syntax if that is there.
    """
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # the import system's way to say "not found"


def load_hub(layout: Layout) -> Any:
    """Return a JupyterHub application object with this installation's configuration, not started.

    It runs the configuration in this process, so it is for the hub's account (barehub.evaluation). Raises ConfigError
    if a file does not load or a value is refused, also one of the authenticator's or the spawner's.
    """
    from jupyterhub.app import JupyterHub
    from traitlets import TraitError

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        hub = JupyterHub(log_level=logging.CRITICAL)
        try:
            hub.load_config_file(str(layout.share / "jupyterhub_config.py"))
        except SystemExit:  # after it has logged which trait refuses which value
            raise refused(layout, said.getvalue().strip().rpartition("initialization: ")[2]) from None
        for one in (hub.authenticator_class, hub.spawner_class):
            try:
                one.__new__(one)._load_config(hub.config)
            except TraitError as error:
                raise refused(layout, str(error)) from error
            except Exception:  # noqa: S112 - what it makes of a value needs an object that the hub has initialised
                continue
    return hub


def refused(layout: Layout, why: str) -> ConfigError:
    """Return the error for a value that a trait does not take, with the place that sets it if that can be seen."""
    trait = re.search(r"'(\w+)' trait", why)
    what = f"{place_of(layout, trait[1]) if trait else ''}the configuration is refused: {why}"
    if "import" in why and (hidden := hidden_packages()):
        return ConfigError(*because_hidden(what, hidden))
    return ConfigError(what, f"fix it in {layout.config}")
