# What the overlay `oidc` must know about this site. Copy it to BASE/jupyterhub_config.d, adapt it, then run:
#   systemctl restart barehub-hub
from barehub.secret import read_secret

# The provider, as its /.well-known/openid-configuration has it: authorization_endpoint, token_endpoint,
# userinfo_endpoint.
provider = "https://id.example.org/realms/site/protocol/openid-connect"
c.GenericOAuthenticator.authorize_url = f"{provider}/auth"
c.GenericOAuthenticator.token_url = f"{provider}/token"
c.GenericOAuthenticator.userdata_url = f"{provider}/userinfo"
# The certificate authority that has issued its certificate; without this line, those that the machine trusts.
c.GenericOAuthenticator.http_request_kwargs = {"ca_certs": "/etc/ssl/certs/site-ca.pem"}

# The hub, as the provider has it registered: its client, the first line of the file oidc-secret beside this one, and
# where people come back to.
c.GenericOAuthenticator.client_id = "jupyterhub"
c.GenericOAuthenticator.client_secret = read_secret("oidc-secret")
c.GenericOAuthenticator.oauth_callback_url = "https://hub.example.org/hub/oauth_callback"
# Where a logout goes on to, so that it ends the provider's session, too (end_session_endpoint).
c.GenericOAuthenticator.logout_redirect_url = f"{provider}/logout?client_id=jupyterhub"

# Who may log in: members of these groups, whatever other files say. `allow_all = True` lets in everybody who has an
# account at the provider and on this machine.
c.Authenticator.allow_all = False
c.GenericOAuthenticator.allowed_groups = {"hpc-users"}
# Who may see and stop other people's servers; they may log in, too.
c.GenericOAuthenticator.admin_groups = {"hpc-admins"}
