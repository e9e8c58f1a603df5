"""A secret in a file of its own, for configuration files to read: a bind password, an OpenID client's secret.

from barehub.secret import read_secret
c.LDAPAuthenticator.lookup_dn_search_password = read_secret("ldap-password")
"""

from barehub.accounts import current_user
from barehub.errors import UserError
from barehub.layout import Layout

files_read: list[str] = []  # for `barehub status`, which warns if others can read one


def read_secret(name: str) -> str:
    """Return the first line of a file, relative to BASE/jupyterhub_config.d. Raises UserError if there is none."""
    path = Layout.from_environment().config / name
    fix = f"write it there, alone on a line; chown root:GROUP {path}; chmod 640 {path}, with {current_user()}'s group"
    try:
        secret = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"the secret {path} cannot be read: {why}", fix) from None
    if not secret:
        raise UserError(f"the secret {path} is empty", fix)
    files_read.append(str(path))
    return secret
