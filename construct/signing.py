"""`release.py build --sign`: one SHA256SUMS over all files of a release, and one detached signature of it.

A machine without network checks both with what it has: gpg, or `ssh-keygen -Y verify` of OpenSSH >= 8.0 (ssh-keygen(1),
its format is PROTOCOL.sshsig).
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from construct.installer import write_sums
from recipe.errors import UserError

SUMS = "SHA256SUMS"
NAMESPACE = "file"  # what ssh-keygen's manual has for files in general


def require_signable(output: Path, stem: str, key: str) -> None:
    """Raise UserError unless there is such a key, and `output` has room for this release's files and no others.

    `stem` is what their names begin with. What was signed once is published, and never changes.
    """
    others = sorted(path.name for path in output.iterdir() if not path.name.startswith(stem))
    if (output / SUMS).exists():
        raise UserError(
            f"{output} holds a signed release, which never changes",
            "give --output another directory, and the release another label with --date",
        )
    if others:
        raise UserError(
            f"{output} holds {others[0]}, which is not of this release", "give --output a directory of its own"
        )
    if not is_ssh_key(key):
        run("gpg", ["gpg", "--batch", "--list-secret-keys", key], f"there is no key {key}: no file, and none of gpg's")


def sign_release(output: Path, key: str) -> Path:
    """Write SHA256SUMS of `output` and the signature beside it, which is returned.

    `key` is the file of a private SSH key (or of a public one whose private one the agent has), or a name that gpg
    knows a secret key by. Raises UserError if signing fails; then neither is there.
    """
    with tempfile.TemporaryDirectory(dir=output, prefix=".signing-") as directory:
        write_sums(output)
        sums = (output / SUMS).rename(Path(directory, SUMS))
        if is_ssh_key(key):
            signature = sums.with_name(f"{SUMS}.sig")
            run("ssh-keygen", ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", NAMESPACE, sums])
        else:
            signature = sums.with_name(f"{SUMS}.asc")
            run("gpg", ["gpg", "--batch", "--armor", "--detach-sign", "--local-user", key, "--output", signature, sums])
        signature.rename(output / signature.name)
        sums.rename(output / SUMS)
    return output / signature.name


def is_ssh_key(key: str) -> bool:
    return Path(key).is_file()


def run(tool: str, words: Sequence[str | Path], problem: str = "") -> None:
    """Run gpg or ssh-keygen; a passphrase is asked for by its own agent, or on the terminal."""
    try:
        done = subprocess.run(
            [os.fspath(word) for word in words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError(f"there is no {tool}", "install GnuPG or OpenSSH's client") from error
    if done.returncode:
        raise UserError(
            f"{problem or 'signing failed'}: {done.stderr.strip()}",
            "--sign takes the file of a private SSH key, or the name of one of gpg's secret keys",
        )


def check_command(name: str, signature: Path) -> str:
    """What an admin runs, in the directory with the files, to check them."""
    if signature.suffix == ".asc":
        check = f"gpg --verify {signature.name} {SUMS}"
    else:
        check = f"ssh-keygen -Y verify -f allowed_signers -I {name} -n {NAMESPACE} -s {signature.name} <{SUMS}"
    return f"{check} && sha256sum -c {SUMS}"
