"""What the proxy needs from root before it starts: its static configuration, its sockets, its certificate.

The static configuration is derived from JupyterHub's traits.

Runs as root, and learns from a process of the hub's account what the configuration says. If that is broken, or asks for
addresses or certificates that are not to be had, it reports that and keeps the last valid static configuration, so that
a restart of the proxy does not take the service down with it.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace

from barehub.errors import UserError, render
from barehub.evaluation import ProxyWanted, evaluate
from barehub.layout import Layout
from barehub.process import write_atomically
from barehub.proxy_unit import acme
from barehub.proxy_unit.certificates import expiry_of
from barehub.proxy_unit.renewal import Source, copy_files
from barehub.proxy_unit.sockets import Addresses, addresses_of, read_addresses, store_doors
from barehub.proxy_unit.static import Config, as_text
from barehub.settings import Settings


def main() -> int:
    layout = Layout.from_environment()
    before = last_addresses(layout)
    wanted: Addresses = {}
    try:
        proxy = evaluate(layout, Settings.load(layout) or Settings(), rehearsal=False).require_proxy()
        source = prepare(layout, proxy, say=lambda warning: print(f"warning: {warning}", file=sys.stderr))
        wanted = addresses_of(proxy.static)
        ensure_doors(wanted, before)
        write(layout, proxy.static, source)
    except Exception as error:  # whatever the hub's account has answered: the proxy starts with what it had
        print(render(as_user_error(error)), file=sys.stderr)
        if not before:
            return 1
        print(f"the proxy goes on with its last configuration, {layout.static_config}", file=sys.stderr)
        try:
            ensure_doors(before, wanted or before)
        except UserError as error:
            print(render(error), file=sys.stderr)
            return 1
    return 0


def as_user_error(error: Exception) -> UserError:
    """Return an error for people; one that is none is a disk's, or an answer that makes no sense."""
    if isinstance(error, UserError):
        return error
    return UserError(
        f"the proxy's configuration cannot be used: {error!r}",
        "run barehub status, which names the problem; then restart the proxy",
    )


def last_addresses(layout: Layout) -> Addresses:
    """Return where the last valid static configuration listens; nowhere if there is none."""
    try:
        return read_addresses(layout.static_config)
    except UserError:
        return {}


def ensure_doors(wanted: Addresses, before: Addresses) -> None:
    """Let systemd keep listening sockets for each address. Raises UserError if one cannot be had.

    Here, since it takes root: for ports below 1024, and so that no other account can share them.
    """
    if "NOTIFY_SOCKET" in os.environ:
        store_doors(wanted, before)


def prepare(layout: Layout, proxy: ProxyWanted, *, say: Callable[[str], None]) -> Source | None:
    """Put what traefik needs for HTTPS where it can read it; return where the certificate comes from.

    `say` gets what is wrong but stops nothing. Raises UserError if there is no certificate that could be served.
    """
    source = proxy.source
    if source is None:
        return None
    if not source.cert:
        for warning in (*acme.keep_store(layout, running=False), *acme.check_environment(layout)):
            say(warning)
        if proxy.ca_bundle:
            acme.copy_bundle(layout, proxy.ca_bundle)
        return source
    source = replace(source, seen=source.digest)
    try:
        for warning in copy_files(layout, source):
            say(warning)
    except UserError as error:
        if expiry_of(layout.certificate) is None:
            raise
        print(f"{render(error)}\nthe proxy goes on with the certificate it has", file=sys.stderr)
    return source


def write(layout: Layout, config: Config, source: Source | None = None) -> None:
    """Write the static configuration, for root and the proxy's group; and where the certificate comes from."""
    group = layout.proxy_state.stat().st_gid
    write_atomically(layout.static_config, as_text(config), 0o640, (-1, group))
    if source:
        source.save(layout)
    else:
        layout.certificate_source.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
