"""oauthenticator's generic authenticator for accounts of this machine, with a reason for each failure."""
