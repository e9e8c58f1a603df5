"""The configuration files, the order in which they are loaded, and what is wrong with one that fails."""

import contextlib
import io
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from barehub.errors import UserError
from barehub.layout import Layout

CONFIG_EXIT = 78  # EX_CONFIG of sysexits.h: a restart would not help, and the hub's unit says so


class ConfigError(UserError):
    """A configuration file that does not load."""


def config_files(layout: Layout) -> list[Path]:
    """Return the *.py files that make up the configuration, in load order.

    They come from two directories, the active release's and BASE/jupyterhub_config.d, sorted by name over both; a
    file in BASE masks the release's of the same name, as with systemd's drop-ins (systemd.unit(5)).
    """
    by_name = {
        path.name: path
        for directory in (layout.share / "jupyterhub_config.d", layout.config)
        for path in directory.glob("*.py")
    }
    return [by_name[name] for name in sorted(by_name)]


def masked_files(layout: Layout) -> list[Path]:
    """Return the release's files that are not loaded because BASE has a file of the same name."""
    used = config_files(layout)
    return [path for path in (layout.share / "jupyterhub_config.d").glob("*.py") if path not in used]


def load_files(layout: Layout, config: Any, load_subconfig: Callable[..., None]) -> None:
    """Run every configuration file with `c` bound to `config`, a traitlets Config, so that each sees earlier ones.

    Raises ConfigError with the file and the line.
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
        except Exception as error:
            raise ConfigError(explain(path, error), "fix that file, then restart the hub") from error


def explain(path: Path, error: BaseException) -> str:
    """Return `path, line 3: NameError: ...`, with the deepest line of this file in the traceback."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    what = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return f"{path}{f', line {line}' if line else ''}: {what}"


def load_hub(layout: Layout) -> Any:
    """Return a JupyterHub application object with this installation's configuration, not started.

    Raises ConfigError if a file does not load or a value is refused.
    """
    from jupyterhub.app import JupyterHub

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        hub = JupyterHub(log_level=logging.CRITICAL)
        try:
            hub.load_config_file(str(layout.share / "jupyterhub_config.py"))
        except SystemExit:  # after it has logged which trait refuses which value
            why = said.getvalue().strip().rpartition("initialization: ")[2]
            raise ConfigError(f"the configuration is refused: {why}", f"fix it in {layout.config}") from None
    return hub
