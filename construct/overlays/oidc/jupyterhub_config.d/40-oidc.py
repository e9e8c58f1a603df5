"""People log in with OpenID Connect. What differs from site to site goes in a file of your own: examples/60-oidc.py."""

c.JupyterHub.authenticator_class = "barehub_oidc.authenticator.ProviderAuthenticator"

c.GenericOAuthenticator.login_service = "OpenID Connect"
c.GenericOAuthenticator.scope = ["openid", "profile"]
c.GenericOAuthenticator.username_claim = "preferred_username"
# The groups that the provider names at each login are the user's in the hub, and no others.
c.GenericOAuthenticator.manage_groups = True
c.GenericOAuthenticator.auth_state_groups_key = "oauth_user.groups"
