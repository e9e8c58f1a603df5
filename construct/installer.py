"""Write the installer: header.sh with its numbers filled in, padded to HEADER_BYTES, then a plain tar."""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from recipe.errors import UserError
from recipe.files import file_sha256

HEADER = Path(__file__).with_name("header.sh")
# What the installer runs of its payload, beside the engine. The header reads all of the first ones.
FUNCTIONS = ("preflight.sh", "ports.sh", "steps.sh", "compare.sh", "backup.sh")
COMPARISON = HEADER.parents[1] / "post_install/barehub/lifecycle/comparison.py"
SCRIPTS = (*(HEADER.with_name(name) for name in (*FUNCTIONS, "add_to_channel.sh", "osv.py")), COMPARISON)
HELP = HEADER.with_name("environment.help")  # instead of the header's own, for users' environments
ENVIRONMENT = HEADER.with_name("environment.sh")  # one more script, for these
HEADER_BYTES = 32 * 1024  # so that `tail -c +32769` gets the tar out of any release
NO_SHA256 = "0" * 64

# On top of the installed size, the unpacked payload and the engine's copy of it: room for the hub to work in.
MARGIN_KB = 64 * 1024


def write_installer(path: Path, payload: Path, values: Mapping[str, object], moment: datetime) -> None:
    """Make the installer at `path` from the directory `payload` and the values of the header's placeholders.

    Same input, same bytes: the tar's members are sorted, owned by root, and all of one `moment`. `path` appears whole.
    """
    staged = path.with_name(f".{path.name}.new")
    with staged.open("wb") as file:
        file.write(b"\0" * HEADER_BYTES)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for member in sorted(payload.rglob("*"), key=lambda one: (len(one.relative_to(payload).parts), one)):
                tar.add(
                    member,
                    str(member.relative_to(payload)),
                    recursive=False,
                    filter=lambda i: plain(i, moment),
                )
    with staged.open("rb") as file:
        file.seek(HEADER_BYTES)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    header = render_header(
        {
            **values,
            "FILE": path.name,
            "FILE_BYTES": staged.stat().st_size,
            "HEADER_BYTES": HEADER_BYTES,
            "PAYLOAD_START": HEADER_BYTES + 1,
            "PAYLOAD_SHA256": sha256,
        }
    )
    with staged.open("r+b") as file:
        file.write(header)
        os.fsync(file.fileno())
    staged.chmod(0o755)
    staged.replace(path)


def plain(member: tarfile.TarInfo, moment: datetime) -> tarfile.TarInfo:
    """Return the member without what it tells of the machine it was made on."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = int(moment.timestamp())
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def render_header(values: Mapping[str, object]) -> bytes:
    """Return header.sh with each @NAME@ filled in (a missing one is a KeyError), padded with newlines to HEADER_BYTES.

    The header's own sha256, which it checks, is that of the header with NO_SHA256 in its place. The script ends with
    `exit`, so the shell never reads what follows. Raises UserError if it is too long: the sizes of the values are the
    builder's, and a unit test keeps room for them.
    """
    known = {"HEADER_SHA256": NO_SHA256, "FUNCTIONS": " ".join(FUNCTIONS), **values}
    template = HEADER.read_text()
    if values.get("KIND") == "environment":
        first, _, rest = template.partition("\n")
        template = f"{first}\n{HELP.read_text()}{rest[rest.index('# What follows this script') :]}"
    header = fill_in(template, known).encode()
    if len(header) > HEADER_BYTES:
        raise UserError(f"the header has {len(header)} bytes, more than {HEADER_BYTES}", "use a shorter --name")
    header = header.ljust(HEADER_BYTES, b"\n")
    return header.replace(NO_SHA256.encode(), hashlib.sha256(header).hexdigest().encode())


def fill_in(template: str, values: Mapping[str, object]) -> str:
    """Return the template with each @NAME@ replaced by its value; one without a value is a KeyError."""
    return re.sub(r"@([A-Z_0-9]+)@", lambda match: str(values[match[1]]), template)


def write_sums(directory: Path) -> None:
    """Write SHA256SUMS over every file in `directory`, in the format of sha256sum(1)."""
    out = io.StringIO()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        out.write(f"{file_sha256(path)}  {path.relative_to(directory)}\n")
    (directory / "SHA256SUMS").write_text(out.getvalue())
