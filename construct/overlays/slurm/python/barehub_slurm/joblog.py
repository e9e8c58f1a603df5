"""The last lines of a job's log, for the page that says why a server has not started.

The log is its user's file: it may be of any size, a pipe, or a link to anything. So it is read as that user, never as
the hub, and only its end is. What looks like a secret is left out, because people show such pages to others.
"""

import pwd
import re
from collections.abc import Collection, Mapping

from barehub_slurm.slurm import Slurm, SlurmError

TAIL = "/usr/bin/tail"  # examples/slurm-sudoers allows it with these words
BYTES, LINES, WIDTH = 4000, 12, 200
PATIENCE = 3.0  # seconds; the file system with the homes may be away
HIDDEN = "(left out)"

# Words that name one.
SECRET = r"(?:token|secret|passw|passphrase|cookie|authorization|(?:api|access|private)[_-]?key|xsrf)[\w-]*"  # noqa: S105
# What follows `NAME=`, `NAME:`, `--NAME`, or a scheme of HTTP, to the line's end: headers have several words.
NAMED = re.compile(rf"((?:{SECRET}[\"']?\s*[=:]|--[\w.-]{{0,60}}{SECRET}|\b(?:bearer|basic)\s)\s*)\S.*", re.I)
# A user and perhaps a password in a URL, of a proxy for instance (RFC 3986, 3.2.1).
IN_URL = re.compile(r"(?<=://)[^\s/]+@")
# Tokens of JupyterHub (hexadecimal) and of others (JSON Web Tokens).
UNNAMED = re.compile(r"(?<!\w)(?:[0-9a-f]{32,}|[\w-]{20,}\.[\w-]{20,}\.[\w-]{20,})", re.I)
CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # colours (ECMA-48, 5.4), and the rest


async def last_lines(slurm: Slurm, job_id: str, environment: Mapping[str, str]) -> str:
    """Return the log's last lines without the secrets in the job's `environment`.

    Nothing if the log cannot be read here, or not in time.
    """
    try:
        path = f"{pwd.getpwnam(slurm.user).pw_dir}/.jupyterhub/job-{job_id}.log"
        text = await slurm.run_as_user(TAIL, "-c", str(BYTES), "--", path, patience=PATIENCE)
    except (KeyError, SlurmError):
        return ""
    secrets = [value for name, value in environment.items() if re.search(SECRET, name, re.I) and len(value) > 5]
    return presentable(text, secrets)


def presentable(text: str, secrets: Collection[str]) -> str:
    """Return the last lines of the end of a log, as text that can be shown once it is escaped."""
    # The first line is the job's number, or it is cut, and with it perhaps the word that makes the rest a secret.
    lines = [CONTROL.sub("", line) for line in text.split("\n")[1:]]
    for secret in secrets:
        lines = [line.replace(secret, HIDDEN) for line in lines]
    lines = [IN_URL.sub(f"{HIDDEN}@", NAMED.sub(rf"\1{HIDDEN}", line)) for line in lines if line.strip()]
    lines = [UNNAMED.sub(HIDDEN, line) for line in lines]
    return "\n".join(line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in lines[-LINES:])
