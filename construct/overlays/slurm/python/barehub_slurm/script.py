"""The job's script: job.sh.jinja, filled in for one server."""

import shlex
from functools import cache
from importlib.resources import files
from typing import Any

import jupyterhub
from barehub.environments import modules
from jinja2 import Template

from barehub_slurm.options import Request


@cache
def template() -> Template:
    made: Template = Template((files(__package__) / "job.sh.jinja").read_text())
    return made


def job_script(spawner: Any, request: Request, name: str, environment: str) -> str:
    """Return the script of a spawner's job, which is called `name`. It holds the server's token.

    `environment` is a prefix, or `module load NAME...`.
    """
    variables = {name: value for name, value in spawner.get_env().items() if name not in ("HOME", "USER", "SHELL")}
    accepts = (spawner.oldest_jupyterhub, jupyterhub.__version__, str(spawner.report_timeout))
    names = {
        "job_name": name,
        "environment": shlex.quote(environment),
        "modules": modules(environment),
        "env": [(name, shlex.quote(str(value))) for name, value in variables.items()],
        "launch": (files(__package__) / "launch.py").read_text(),
        "login_timeout": spawner.login_timeout,
        "cmd": shlex.join([*accepts, *spawner.cmd, *spawner.get_args()]),
    }
    return template().render(spawner.get_req_subvars() | vars(request) | names)
