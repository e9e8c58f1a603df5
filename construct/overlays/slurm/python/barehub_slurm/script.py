"""The job's script: job.sh.jinja, filled in for one server."""

import re
import shlex
from functools import cache
from importlib.resources import files
from typing import Any

import jupyterhub
from barehub.environments import modules
from jinja2 import Template

from barehub_slurm.options import RefusedError, Request

WORDS = ("partition", "account", "qos", "reservation")  # one each; whatever follows it would be an option of sbatch


@cache
def template() -> Template:
    made: Template = Template((files(__package__) / "job.sh.jinja").read_text())
    return made


@cache
def launcher() -> str:
    """Return launch.py, with what it imports in place of the import: nothing of ours is installed on the node."""
    here = files(__package__)
    launch, ports = ((here / name).read_text() for name in ("launch.py", "node_ports.py"))
    return launch.replace(f"from {__package__}.node_ports import accounts_at, free_port\n", ports)


def job_script(spawner: Any, request: Request, name: str, environment: str) -> str:
    """Return the script of a spawner's job, which is called `name`. It holds the server's token.

    `environment` is a prefix, or `module load NAME...`. Raises RefusedError for a value that would be more than one
    word of an #SBATCH line, as a site's hook may make it from what a user has typed.
    """
    exported = {name: value for name, value in spawner.get_env().items() if name not in ("HOME", "USER", "SHELL")}
    accepts = (spawner.oldest_jupyterhub, jupyterhub.__version__, str(spawner.report_timeout), spawner.port_range)
    names = {
        "job_name": name,
        "environment": shlex.quote(environment),
        "modules": modules(environment),
        "env": [(name, shlex.quote(str(value))) for name, value in exported.items()],
        "launch": shlex.quote(launcher()),
        "lab": shlex.quote((files(__package__) / "lab.js").read_text()),
        "login_timeout": spawner.login_timeout,
        "cmd": shlex.join([*accepts, *spawner.cmd, *spawner.get_args()]),
    }
    variables = spawner.get_req_subvars() | request.words() | names
    variables["directory"] = shlex.quote(request.directory) if request.directory else ""
    for word in WORDS:
        if re.search(r"[\s'\"\\]", str(variables[word])):
            raise RefusedError(f"{variables[word]!r} cannot be the {word} of a job")
    return template().render(variables)
