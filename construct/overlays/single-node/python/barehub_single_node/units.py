"""The names of units, and why one is not running."""

import asyncio
import hashlib
import re


def unit_name(template: str, user: str, server: str = "") -> str:
    """Return the unit of a user's server, given what systemdspawner made of its template: the same for all servers.

    Only letters, digits and -_.@ remain: systemd reads a backslash in EnvironmentFile= as an escape and a colon or
    space in RuntimeDirectory= as a separator, and systemdspawner puts the name into both. Two servers never have the
    same unit: a digest stands for what is lost.
    """
    plain = re.sub(r"[^A-Za-z0-9_.@-]+", "-", f"{template}-{server}" if server else template)
    if plain == template and not server:
        return template
    digest = hashlib.sha256(f"{template}\0{user}\0{server}".encode()).hexdigest()[:8]
    return f"{plain[:200]}-{digest}"


async def show(unit: str) -> dict[str, str]:
    """Return a unit's ActiveState and Result, as systemd has them."""
    process = await asyncio.create_subprocess_exec(
        "systemctl", "show", "--property=ActiveState,Result,ExecMainStatus", "--", f"{unit}.service",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await process.communicate()
    return dict(line.split("=", 1) for line in out.decode(errors="replace").splitlines() if "=" in line)


def why_not_running(unit: str, properties: dict[str, str]) -> str:
    """Say why a unit does not run; nothing if it is still starting."""
    state, result = properties.get("ActiveState", ""), properties.get("Result", "")
    if state in ("activating", "active", "reloading"):
        return ""
    status = properties.get("ExecMainStatus", "")
    if result == "exit-code":
        what = f"failed with exit status {status}"
    elif result and result != "success":
        what = f"failed: {result}"
    else:
        what = "was not started" if status in ("", "0") else f"ended with exit status {status}"
    return f"Your server did not start: its unit {what}. Administrators: journalctl --unit={unit}"
