"""Who has signed a release: an administrator's key, a signature of SHA256SUMS, and in that the release's receipt.

BASE/allowed_signers       public SSH keys, as ssh-keygen(1) has it, or
BASE/allowed_signers.gpg   public keys that `gpg --export` has written

An administrator puts one of these there, once; no installer does. `release.py build --sign` signs SHA256SUMS, and the
installer copies that and its signature into the release, from where it lies itself.
"""

import hashlib
import os
import re
from pathlib import Path

from barehub.accounts import current_user, others_can_write, unsafe_hop
from barehub.errors import UserError, printable
from barehub.layout import Layout
from barehub.process import attempt, attempt_as

SUMS = "SHA256SUMS"
SIGNATURES = ("SHA256SUMS.sig", "SHA256SUMS.asc")
NAMESPACE = "file"  # as in construct/signing.py
FIX = "put SHA256SUMS and its signature, as they were published, beside the installer and run it again"


class UnsignedError(Exception):
    """A release is not signed by any key that the administrator trusts, and why."""


def signer(layout: Layout, name: str, platform: str) -> str:
    """Return who has signed the release of this prefix, as the tool that checks it says; empty if no key is trusted.

    `name` and `platform` are the receipt's. Raises UnsignedError if there is a key and no signature by it for this
    receipt, UserError if that cannot be found out.
    """
    keys = {layout.allowed_signers: SIGNATURES[0], layout.allowed_signers.with_suffix(".gpg"): SIGNATURES[1]}
    present = {key: layout.share / signature for key, signature in keys.items() if os.path.lexists(key)}
    if not present:
        return ""
    for key in present:
        require_safe(key, layout.base)
    signed = {key: signature for key, signature in present.items() if signature.is_file()}
    sums = layout.share / SUMS
    if not signed or not sums.is_file():
        raise UnsignedError("it has no signature")
    require_listed(sums, layout, name, platform)
    problems = []
    for key, signature in signed.items():
        try:
            return check_gpg(key, signature, sums) if key.suffix == ".gpg" else check_ssh(key, signature, sums, name)
        except UnsignedError as error:
            problems.append(str(error))
    raise UnsignedError("; ".join(problems))


def require_listed(sums: Path, layout: Layout, name: str, platform: str) -> None:
    """Raise UnsignedError unless what was signed lists the receipt, with its hash, as that of this very release."""
    receipt = layout.receipt(layout.prefix.name).read_bytes()
    machine = {"linux-64": "x86_64"}.get(platform, platform.removeprefix("linux-"))
    listed = f"{name}-{layout.prefix.name}-Linux-{machine}.release.json"
    line = f"{hashlib.sha256(receipt).hexdigest()}  {listed}"
    if line not in sums.read_text(errors="replace").splitlines():
        raise UnsignedError(f"{sums} does not list its receipt as {listed}")


def check_ssh(key: Path, signature: Path, sums: Path, name: str) -> str:
    """Check a signature with ssh-keygen; see `signer`."""
    words = ("ssh-keygen", "-Y", "verify", "-f", key, "-I", name, "-n", NAMESPACE, "-s", signature)
    try:
        done = attempt_as(current_user(), *words, text=sums.read_text(errors="replace"))
    except FileNotFoundError:
        raise UserError(f"{signature} was not checked: there is no ssh-keygen", "install OpenSSH's client") from None
    said = printable((done.stdout + done.stderr).strip()).splitlines() or [""]
    if re.search("(unknown|illegal|invalid) option", done.stderr):
        raise UserError(f"{signature} was not checked: ssh-keygen is too old", "OpenSSH 8.1 or newer can check it")
    if done.returncode:
        raise UnsignedError(f"{signature.name} is no signature by a key in {key}: {said[-1]}")
    return said[0]


def check_gpg(key: Path, signature: Path, sums: Path) -> str:
    """Check a signature with gpgv; see `signer`."""
    done = attempt("gpgv", "--keyring", key, signature, sums)
    if done.returncode == 127:
        raise UserError(f"{signature} was not checked: there is no gpgv", "install gpgv, which may be part of GnuPG")
    said = [line.removeprefix("gpgv: ") for line in printable(done.stderr.strip()).splitlines()] or [""]
    if done.returncode:
        raise UnsignedError(f"{signature.name} is no signature by a key in {key}: {said[-1]}")
    return next((line for line in said if line.startswith("Good signature")), said[-1])


def require_safe(key: Path, base: Path) -> None:
    """Check that nobody but root and the owner of BASE can change a key, or put another in its place.

    Raises UserError if somebody can, OSError if the key cannot be read.
    """
    owners, real = (0, base.stat().st_uid), Path(os.path.realpath(key))
    unsafe, found = unsafe_hop(key, owners), real.stat()
    if unsafe is None and (found.st_uid not in owners or others_can_write(real, found)):
        unsafe = real
    if unsafe:
        fix = f"chown -h root {unsafe}; chmod go-w {unsafe}"
        raise UserError(f"others can change {key}: {unsafe} is not safe", fix)
    key.open("rb").close()
