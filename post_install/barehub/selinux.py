"""SELinux: the types that systemd wants to see before it starts our units.

The policy knows /opt: what lies in a directory `bin` there may be executed by systemd, the rest may be read. A BASE
elsewhere, in /srv or on a file system of its own, has one type for all, and systemd ends each unit with 203/EXEC. An
equivalence, `semanage fcontext -e` (semanage-fcontext(8)), makes the policy treat BASE as it treats /opt/NAME.

Where SELinux is enforcing, systemd checks the type of a unit's file too, and refuses what lies in a directory that the
policy does not expect units in: so units are copied then, not linked.
"""

import shutil
from collections.abc import Callable

from barehub.layout import Layout
from barehub.process import attempt
from barehub.settings import Installation

EXECUTABLE = "bin_t"


def is_enforcing(layout: Layout) -> bool:
    """Return True if SELinux refuses what its policy does not allow: selinuxfs, as `getenforce` reads it."""
    try:
        return (layout.root / "sys/fs/selinux/enforce").read_text().strip() == "1"
    except OSError:
        return False


def is_enabled(layout: Layout) -> bool:
    """Return True if files have types here, whether or not SELinux is enforcing."""
    return (layout.root / "sys/fs/selinux/enforce").exists()


def label_files(installation: Installation, say: Callable[[str], None]) -> None:
    """Give all files of BASE the types that systemd needs; does nothing where there is no SELinux."""
    layout = installation.layout
    if not is_enabled(layout):
        return
    if expected_type(layout) not in ("", EXECUTABLE):
        model = f"/opt/{installation.settings.name}"
        rule = ("semanage", "fcontext", "--add", "--equal", model, str(layout.base))
        if not shutil.which("semanage"):
            say(f"warning: SELinux does not let systemd run programs of {layout.base}, and there is no semanage")
            say(f"  fix: install policycoreutils-python-utils, then run this again; or {' '.join(rule)}")
        elif (done := attempt(*rule)).returncode:
            say(f"warning: SELinux does not let systemd run programs of {layout.base}: {done.stderr.strip()}")
            say(f"  fix: {' '.join(rule)}; restorecon -RF {layout.base}")
        else:
            say(f"told SELinux to treat {layout.base} like {model}")
    # Not where other accounts can replace a directory by a link while it looks.
    theirs = (word for path in (layout.hub_state, layout.rules, layout.acme) for word in ("-e", path))
    attempt("restorecon", "-RF", *theirs, layout.base)


def forget_files(installation: Installation) -> None:
    """Remove the equivalence that `label_files` may have added."""
    layout = installation.layout
    if is_enabled(layout) and shutil.which("semanage"):
        attempt("semanage", "fcontext", "--delete", "--equal", f"/opt/{installation.settings.name}", layout.base)


def expected_type(layout: Layout) -> str:
    """Return the type that the policy has for the release's programs (matchpathcon(8)); empty if that is not known."""
    program = layout.release(layout.active or "") / "bin/python"
    context = attempt("matchpathcon", "-n", program).stdout.strip()
    return context.split(":")[2] if context.count(":") >= 2 else ""
