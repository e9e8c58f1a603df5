"""`release.py build --sign`: writes one SHA256SUMS over all files of a release, and one detached signature of it.

A machine without network checks both with gpg, or with `ssh-keygen -Y verify` of OpenSSH >= 8.0 (ssh-keygen(1); the
format is PROTOCOL.sshsig).
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from construct.installer import write_sums
from recipe.errors import UserError

SUMS = "SHA256SUMS"
NAMESPACE = "file"  # the one that ssh-keygen(1) gives for files in general


def require_signable(output: Path, stem: str, key: str) -> None:
    """Raise UserError unless the key exists and `output` holds nothing but unsigned files of this release.

    `stem` is what their names begin with. A signed release is published and never changes.
    """
    others = sorted(path.name for path in output.iterdir() if not path.name.startswith(stem))
    if (output / SUMS).exists():
        raise UserError(
            f"{output} holds a signed release, which never changes",
            "give --output another directory, and the release another label with --date",
        )
    if others:
        raise UserError(
            f"{output} holds {others[0]}, which does not belong to this release", "give --output a directory of its own"
        )
    if not is_ssh_key(key):
        missing = f"there is no key {key}, neither a file nor one of gpg's"
        run_signer("gpg", ["gpg", "--batch", "--list-secret-keys", key], missing)


def sign_release(output: Path, key: str) -> Path:
    """Write SHA256SUMS of `output` and the signature beside it, and return the signature's path.

    `key` is the file of a private SSH key (or of a public one whose private key the agent holds), or the name of a
    secret key of gpg's. Raises UserError if signing fails; then neither file exists.
    """
    with tempfile.TemporaryDirectory(dir=output, prefix=".signing-") as directory:
        write_sums(output)
        sums = (output / SUMS).rename(Path(directory, SUMS))
        if is_ssh_key(key):
            signature = sums.with_name(f"{SUMS}.sig")
            run_signer("ssh-keygen", ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", NAMESPACE, sums])
        else:
            signature = sums.with_name(f"{SUMS}.asc")
            options = ["--batch", "--armor", "--detach-sign", "--local-user", key, "--output"]
            run_signer("gpg", ["gpg", *options, signature, sums])
        signature.rename(output / signature.name)
        sums.rename(output / SUMS)
    return output / signature.name


def is_ssh_key(key: str) -> bool:
    return Path(key).is_file()


def run_signer(tool: str, words: Sequence[str | Path], problem: str = "") -> None:
    """Run gpg or ssh-keygen, which ask for a passphrase through their agent or on the terminal."""
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
    """Return the command that checks the files, for an administrator to run in their directory."""
    if signature.suffix == ".asc":
        check = f"gpg --verify {signature.name} {SUMS}"
    else:
        check = f"ssh-keygen -Y verify -f allowed_signers -I {name} -n {NAMESPACE} -s {signature.name} <{SUMS}"
    return f"{check} && sha256sum -c {SUMS}"
