"""`barehub verify`: is what is in the active release's prefix what was built, and who has signed it? Offline.

The chain has four links: the administrator's key, the signature of SHA256SUMS, which names the receipt by its hash; the
receipt names the manifest; and the manifest all files that packages bring. Without a key it begins at the receipt.
"""

import contextlib
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from barehub import systemd
from barehub.differences import Finding, differences
from barehub.errors import Exit, UserError, printable
from barehub.layout import Layout
from barehub.lifecycle.added_packages import added_files
from barehub.lifecycle.comparison import added, shipped
from barehub.manifest import Entry, NoManifestError, parse
from barehub.settings import Installation, Settings
from barehub.signature import FIX, SIGNATURES, SUMS, UnsignedError, signer

Say = Callable[[str], None]


def verify(layout: Layout, say: Say) -> None:
    """Check the release that this interpreter belongs to, and print what was found.

    Raises UserError with Exit.INTEGRITY if anything is not as released or not signed by a key that is trusted, and
    with Exit.ERROR if something could not be looked at.
    """
    layout = replace(layout, prefix=layout.prefix.resolve())
    active = layout.hub.resolve()
    say(f"checking {layout.prefix}" + ("" if is_active(layout) else f", which is not active: that is {active}"))
    receipt = read_receipt(layout)
    known = read_manifest(layout, receipt) | own_files(layout)
    by_hand = added(layout.prefix)
    owners = frozenset((0, layout.base.stat().st_uid))
    findings = [
        *differences(layout.prefix, known, added_files(layout.prefix), owners),
        *records(layout.prefix, receipt),
        *units(layout),
        *signature(layout, receipt, say),
    ]
    for one in findings:
        say(printable(f"  {one.what:9} {one.path}{f': {one.why}' if one.why else ''}", keep=""))
    for package in by_hand:
        say(printable(f"  added     {package.name} {package.version} ({package.installer})", keep=""))
    count = Counter(one.what for one in findings)
    if wrong := len(findings) - count["unknown"] - count["unsigned"]:
        raise damaged(layout, f"{wrong} of {len(known)} files differ from the release")
    if count["unsigned"]:
        raise UserError(f"the release {layout.prefix.name} is not signed by a key that you trust", FIX, Exit.INTEGRITY)
    if count["unknown"]:
        raise UserError(f"{count['unknown']} could not be looked at", "see above; root (sudo) can read all files")
    say(f"{len(known)} files are as they were released")


def damaged(layout: Layout, what: str) -> UserError:
    """Return the error of a release whose files have to be written again."""
    return UserError(what, layout.repair(layout.prefix.name), Exit.INTEGRITY)


def signature(layout: Layout, receipt: dict[str, Any], say: Say) -> Iterator[Finding]:
    """Print who has signed the release; yield what is wrong with its signature."""
    try:
        who = signer(layout, str(receipt.get("name")), str(receipt.get("platform")))
    except UnsignedError as error:
        yield Finding(SUMS, "unsigned", str(error))
    except UserError as error:
        yield Finding(SUMS, "unknown", f"{error}; {error.fix}")
    except OSError as error:
        yield Finding(SUMS, "unknown", str(error))
    else:
        without = f"signature: not checked, since {layout.allowed_signers} is not there: see `barehub help verify`"
        say(f"signature: {who}" if who else without)


def read_receipt(layout: Layout) -> dict[str, Any]:
    """Return the receipt. Raises UserError if it is damaged, or of a release without a manifest."""
    path = layout.receipt(layout.prefix.name)
    try:
        receipt = json.loads(path.read_bytes())
        manifests = [one["sha256"] for one in receipt["files"] if one["path"] == layout.manifest.name]
        shipped(receipt)  # which others do later
    except FileNotFoundError:
        raise damaged(layout, f"{layout.prefix} is not complete: it has no receipt") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(layout, f"{path} is damaged: {error}") from None
    if not manifests:
        raise UserError(f"the release {layout.prefix.name} is older than manifests", "upgrade to a newer one")
    return dict(receipt)


def read_manifest(layout: Layout, receipt: dict[str, Any]) -> dict[str, Entry]:
    """Return the manifest. Raises UserError if it is not the one that the receipt names."""
    wanted = [one["sha256"] for one in receipt["files"] if one["path"] == layout.manifest.name]
    try:
        content = layout.manifest.read_bytes()
    except FileNotFoundError:
        content = b""
    with contextlib.suppress(gzip.BadGzipFile, zlib.error, EOFError, NoManifestError):  # named by a forged receipt
        if [hashlib.sha256(content).hexdigest()] == wanted:
            return parse(gzip.decompress(content).decode(errors="surrogateescape"))
    raise damaged(layout, f"{layout.manifest} is missing or damaged")


def own_files(layout: Layout) -> dict[str, Entry]:
    """Return the files that are in a prefix and in no manifest: those that vouch for it, and its units."""
    signed = (layout.share / name for name in (SUMS, *SIGNATURES))
    there = [layout.receipt(layout.prefix.name), layout.manifest, *(path for path in signed if path.is_file())]
    known = {path.relative_to(layout.prefix).as_posix(): Entry() for path in there}
    for name, text in unit_texts(layout).items():
        place = layout.release_units / name
        if is_active(layout) or place.exists():
            known[place.relative_to(layout.prefix).as_posix()] = Entry(hashlib.sha256(text.encode()).hexdigest())
    return known


def is_active(layout: Layout) -> bool:
    return layout.hub.resolve() == layout.prefix


def is_roots(layout: Layout) -> bool:
    """Return True if root has installed it, whoever looks."""
    return layout.base.stat().st_uid == 0


def unit_texts(layout: Layout) -> dict[str, str]:
    """Return the units that this release renders for the installation; none if only its prefix was filled."""
    settings = Settings.load(layout)
    if settings is None:
        return {}
    return systemd.rendered(Installation(layout, settings), for_root=is_roots(layout))


def units(layout: Layout) -> Iterator[Finding]:
    """Yield what differs in the units that systemd reads, links or copies."""
    system_units = layout.root / "etc/systemd/system" if is_roots(layout) else layout.system_units
    for name, text in unit_texts(layout).items() if is_active(layout) else ():
        for place in (layout.units / name, system_units / name):
            with contextlib.suppress(FileNotFoundError):
                if place.resolve(strict=True) == (layout.release_units / name).resolve():
                    continue  # it is checked as a file of the release
                if place.is_symlink() or place.read_text(errors="replace") != text:
                    yield Finding(str(place), "modified", "it is not the unit of this release")


def records(prefix: Path, receipt: dict[str, Any]) -> Iterator[Finding]:
    """Yield conda's records of the release's packages that are missing or damaged. What they hold is not signed."""
    for name, (version, build) in shipped(receipt).items():
        record = f"conda-meta/{name}-{version}-{build}.json"
        try:
            json.loads((prefix / record).read_bytes())
        except FileNotFoundError:
            yield Finding(record, "missing")
        except (ValueError, RecursionError):
            yield Finding(record, "modified", "is damaged")
