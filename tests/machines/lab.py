"""Two releases of an environment for users, as light as a test can do with: they have the packages of /opt/users.

PLACE/releases/1, PLACE/releases/2    a Python of their own, and its server
PLACE/current                         -> releases/1
"""

from tests.machines.machine import Machine

USERS = "/opt/users"

# The version of the second one is what the hub reads, not what is imported: names of files are all that it looks at.
MAKE = f"""
umask 022
purelib='import sysconfig; print(sysconfig.get_path("purelib"))'
for release in 1 2; do
    prefix=PLACE/releases/$release
    {USERS}/bin/python -m venv --without-pip $prefix
    {USERS}/bin/python -c "$purelib" >"$($prefix/bin/python -c "$purelib")/users.pth"
    mkdir -p $prefix/share/jupyter
    ln -s {USERS}/share/jupyter/lab* $prefix/share/jupyter/
    ln -s {USERS}/etc $prefix/
    sed "1s:.*:#!$prefix/bin/python:" {USERS}/bin/jupyterhub-singleuser >$prefix/bin/jupyterhub-singleuser
    chmod +x $prefix/bin/jupyterhub-singleuser
done
mkdir "$($prefix/bin/python -c "$purelib")/jupyterhub-1.5.0.dist-info"
ln -s releases/1 PLACE/current
"""


def make_lab(machine: Machine, place: str) -> None:
    """Make the releases below `place`, a directory that may be shared."""
    machine.shell(MAKE.replace("PLACE", place))


def switch(machine: Machine, place: str, release: str) -> None:
    """Switch `current`, as an installer does."""
    machine.shell(f"ln -s releases/{release} {place}/.new && mv -fT {place}/.new {place}/current")
