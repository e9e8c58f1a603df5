"""Every path that barehub owns, in one place."""

import json
import os
import pwd
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barehub.errors import Exit, UserError


def release_key(label: str) -> tuple[int, ...]:
    """Return the sort key of a release, YYYY.MM.DD[.N], oldest first: a day's second release comes after its first."""
    return tuple(int(number) for number in label.split(".") if number.isdigit())


@dataclass(frozen=True)
class Layout:
    """The paths below one base directory. Tests pass `root=tmp_path` and call the real code.

    `prefix` is that of the release whose code and configuration are used: the one this interpreter belongs to. During
    an upgrade, `hub` does not point to it yet.
    """

    base: Path
    root: Path = Path("/")
    prefix: Path = field(default_factory=lambda: Path(sys.prefix))

    @classmethod
    def from_environment(cls) -> "Layout":
        """Return the layout of the installation of this interpreter: BAREHUB_BASE, else BASE/releases/X/bin/python.

        Raises UserError if this interpreter is not in an installation.
        """
        if base := os.environ.get("BAREHUB_BASE"):
            return cls(Path(base))
        prefix = Path(sys.prefix).resolve()
        if prefix.parent.name != "releases":
            raise UserError(f"{prefix} is not a barehub release", "run BASE/hub/bin/barehub")
        return cls(prefix.parent.parent)

    # releases: never modified after install
    @property
    def releases(self) -> Path:
        return self.base / "releases"

    def release(self, label: str) -> Path:
        return self.releases / label

    def receipt(self, label: str) -> Path:
        """Return release.json of a complete release; it is written as the last step of filling its prefix."""
        return self.release(label) / "share/barehub/release.json"

    def distribution(self, label: str) -> str:
        """Return what a complete release calls itself: barehub, or the name its builder chose.

        Raises UserError if its receipt is damaged.
        """
        return str(self._told(label).get("name", "barehub"))

    def oldest_systemd(self, label: str) -> int:
        """Return the oldest version of systemd that a complete release may run under; 0 if it does not say.

        Raises UserError if its receipt is damaged.
        """
        return int(self._told(label).get("systemd", 0))

    def _told(self, label: str) -> dict[str, Any]:
        try:
            return {**json.loads(self.receipt(label).read_text())}
        except (ValueError, TypeError, RecursionError) as error:
            what = f"{self.receipt(label)} is damaged: {error}"
            raise UserError(what, self.repair(label), Exit.INTEGRITY) from None

    def repair(self, label: str) -> str:
        """Return what an administrator has to do to get the files of a release written again."""
        return f"run the installer of {label} again: sh INSTALLER -b -f -p {self.base}"

    @property
    def hub(self) -> Path:
        """The symlink to the active release."""
        return self.base / "hub"

    @property
    def active(self) -> str | None:
        """The label of the active release, or None."""
        return self.hub.readlink().name if self.hub.is_symlink() else None

    @property
    def complete(self) -> list[str]:
        """The labels of all complete releases, oldest first."""
        return sorted(
            (path.name for path in self.releases.glob("*") if self.receipt(path.name).is_file()), key=release_key
        )

    @property
    def share(self) -> Path:
        return self.prefix / "share/barehub"

    @property
    def manifest(self) -> Path:
        """What the release's packages leave in its prefix: manifest.py."""
        return self.share / "manifest.gz"

    # the administrator's
    @property
    def allowed_signers(self) -> Path:
        """The public keys of those who may sign releases: signature.py."""
        return self.base / "allowed_signers"

    @property
    def config(self) -> Path:
        return self.base / "jupyterhub_config.d"

    @property
    def installer_config(self) -> Path:
        return self.config / "10-install.py"

    @property
    def announcement(self) -> Path:
        return self.base / "announcement.md"

    @property
    def maintenance(self) -> Path:
        return self.base / "maintenance.md"

    @property
    def maintenance_page(self) -> Path:
        return self.base / "maintenance.html"

    # a restore that has not ended yet
    @property
    def restoring(self) -> Path:
        """Where a backup is unpacked; the next run of the installer removes it."""
        return self.base / ".restoring"

    @property
    def restored(self) -> Path:
        """The same, complete: the next run of the installer puts it in place. It exists until a release is active."""
        return self.base / ".restored"

    # state
    @property
    def state(self) -> Path:
        return self.base / "state"

    @property
    def last_backup(self) -> Path:
        """A file whose time is that of the last whole file that `barehub backup` has written."""
        return self.state / "last-backup"

    @property
    def hub_state(self) -> Path:
        """The hub's working directory; only its account may read it."""
        return self.state / "hub"

    @property
    def cookie_secret(self) -> Path:
        return self.hub_state / "jupyterhub_cookie_secret"

    @property
    def api_credentials(self) -> Path:
        """The password of traefik's API and the hash of that password."""
        return self.hub_state / "traefik-api.json"

    @property
    def api_token(self) -> Path:
        """The token that barehub's own commands send to the hub."""
        return self.hub_state / "barehub-api-token"

    @property
    def in_use(self) -> Path:
        """What users' servers run from, for every account: in_use.py."""
        return self.state / "environments/in-use"

    @property
    def backups(self) -> Path:
        return self.hub_state / "backups"

    def backup(self, label: str, kind: str = ".sqlite") -> Path:
        """Return the backup of the database as the release with this label left it; `.dump` is PostgreSQL's."""
        return self.backups / f"jupyterhub-{label}{kind}"

    @property
    def rules(self) -> Path:
        """Written by the hub; traefik reads every *.yaml and *.toml in it."""
        return self.state / "rules"

    @property
    def rules_file(self) -> Path:
        return self.rules / "rules.yaml"

    @property
    def rules_staging(self) -> Path:
        """Where the hub writes the rules before it renames them into place."""
        return self.rules / ".new"

    @property
    def logo(self) -> Path:
        """The hub's own logo, as a URL that holds it, for the pages that the proxy shows; not where traefik reads."""
        return self.rules_staging / "logo"

    @property
    def proxy_state(self) -> Path:
        return self.state / "proxy"

    @property
    def static_config(self) -> Path:
        """traefik's static configuration, derived from the hub's when the proxy starts."""
        return self.proxy_state / "traefik.yaml"

    @property
    def certificate(self) -> Path:
        """The proxy's copy of the certificate, with its chain and key."""
        return self.proxy_state / "certificate.pem"

    @property
    def certificate_source(self) -> Path:
        """Where that copy comes from and which names it is for. It exists while the proxy serves HTTPS."""
        return self.proxy_state / "certificate.json"

    @property
    def acme(self) -> Path:
        """Where traefik keeps what it got from an ACME server."""
        return self.state / "acme"

    @property
    def acme_store(self) -> Path:
        return self.acme / "acme.json"

    @property
    def acme_copy(self) -> Path:
        """The last valid copy of it, which the proxy cannot write."""
        return self.proxy_state / "acme.json"

    @property
    def acme_bundle(self) -> Path:
        """The proxy's copy of the certificate authorities that vouch for the ACME server."""
        return self.proxy_state / "acme-ca.pem"

    @property
    def acme_environment(self) -> Path:
        """The environment of traefik's DNS providers; only root may read it."""
        return self.config / "acme.env"

    # the machine
    @property
    def record(self) -> Path:
        """install.json: the options chosen at install time. It marks BASE as a barehub installation."""
        return self.base / "install.json"

    @property
    def units(self) -> Path:
        """Links to the active release's units; systemd's own directory links to these."""
        return self.base / "systemd"

    @property
    def release_units(self) -> Path:
        """The units of this release, rendered."""
        return self.prefix / "systemd"

    @property
    def system_units(self) -> Path:
        """Where systemd looks for the units of administrators, or of the user it belongs to (systemd.unit(5))."""
        if os.geteuid() == 0:
            return self.root / "etc/systemd/system"
        try:
            home = Path(pwd.getpwuid(os.geteuid()).pw_dir)  # as the user's systemd knows it; HOME may be anything
        except KeyError:  # a container with an arbitrary user id, which has no systemd
            home = Path("/nonexistent")
        return self.root / home.relative_to("/") / ".config/systemd/user"
