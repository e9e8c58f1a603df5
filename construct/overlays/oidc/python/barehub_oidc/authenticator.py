"""`c.JupyterHub.authenticator_class` of the overlay. Settings are oauthenticator's: `c.GenericOAuthenticator`."""

from typing import Any

from barehub.logins import AccountNames
from oauthenticator.generic import GenericOAuthenticator
from tornado.httpclient import HTTPClientError
from tornado.web import HTTPError

# Seconds; tornado's own are 20 for each.
LIMITS = {"connect_timeout": 5.0, "request_timeout": 10.0}
NO_ANSWER = (
    "The login service does not answer the hub. Try again in a minute. Administrators: the hub's journal says why."
)
REFUSED = (
    "The login service does not accept the hub ({}). Administrators: check c.GenericOAuthenticator's client_id, the"
    " client's secret, token_url, and userdata_url; the hub's journal says more."
)
NO_NAME = (
    "The login service does not say who you are. Administrators: check c.GenericOAuthenticator's scope and"
    " username_claim; the hub's journal has what it says."
)


class ProviderAuthenticator(AccountNames, GenericOAuthenticator):  # type: ignore[misc]  # neither ships types
    """oauthenticator's generic one; a failure gets a page that says where to look, and never a secret."""

    async def httpfetch(self, url: str, *arguments: Any, **more: Any) -> Any:
        """Ask the provider. Raises HTTPError if it does not answer, or refuses."""
        limits = {name: value for name, value in LIMITS.items() if name not in self.http_request_kwargs}
        try:
            return await super().httpfetch(url, *arguments, **{**limits, **more})
        except HTTPClientError as error:
            if error.code >= 500:  # 599 is tornado's for no answer at all
                raise HTTPError(503, NO_ANSWER) from None
            raise HTTPError(500, REFUSED.format(f"HTTP {error.code}")) from None
        except (OSError, ValueError) as error:  # no connection, no trusted certificate; or an answer that is no JSON
            self.log.error("OpenID Connect: %s: %s: %s", url, type(error).__name__, error)
            raise HTTPError(503, NO_ANSWER) from None

    def user_info_to_username(self, user_info: dict[str, Any]) -> str:
        """Return the claim that names a user. Raises HTTPError if there is none."""
        try:
            return str(super().user_info_to_username(user_info))
        except ValueError:
            raise HTTPError(500, NO_NAME) from None
