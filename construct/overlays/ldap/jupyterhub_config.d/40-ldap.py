"""People log in with LDAP. What differs from site to site goes in a file of your own: see examples/60-ldap.py."""

c.JupyterHub.authenticator_class = "barehub_ldap.authenticator.DirectoryAuthenticator"

# A user is looked for by what they have typed, and gets the name that the directory has for them.
c.LDAPAuthenticator.lookup_dn = True
c.LDAPAuthenticator.user_attribute = c.LDAPAuthenticator.lookup_dn_user_dn_attribute = "uid"
c.LDAPAuthenticator.use_lookup_dn_username = True
# Any name: what means something to LDAP is escaped.
c.LDAPAuthenticator.valid_username_regex = r"(?s)."
