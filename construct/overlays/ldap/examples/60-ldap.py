# What the overlay `ldap` must know about this site. Copy it to BASE/jupyterhub_config.d, adapt it, then run:
#   systemctl restart barehub-hub
from barehub.secret import read_secret

# The servers: if one does not answer, the next is asked. These names must be in their certificates.
c.LDAPAuthenticator.server_address = "ldap1.example.org ldap2.example.org"
# The certificate authority that has issued these; without this line, those that the machine trusts.
c.LDAPAuthenticator.tls_kwargs = {"ca_certs_file": "/etc/ssl/certs/site-ca.pem"}
# StartTLS at port 389 is the default. For LDAPS at port 636:
# c.LDAPAuthenticator.tls_strategy = "on_connect"

# Where people are, and the account that may look for them. Its password is the first line of the file ldap-password
# beside this one. Without the last two lines, the search is anonymous.
c.LDAPAuthenticator.user_search_base = "ou=people,dc=example,dc=org"
c.LDAPAuthenticator.lookup_dn_search_user = "cn=hub,ou=services,dc=example,dc=org"
c.LDAPAuthenticator.lookup_dn_search_password = read_secret("ldap-password")
# For Active Directory:
# c.LDAPAuthenticator.user_attribute = c.LDAPAuthenticator.lookup_dn_user_dn_attribute = "sAMAccountName"

# Who may log in: members of these groups, whatever other files say. `allow_all = True` lets in everybody.
c.Authenticator.allow_all = False
c.LDAPAuthenticator.allowed_groups = ["cn=hpc-users,ou=groups,dc=example,dc=org"]
# Who may see and stop other people's servers; they may log in, too.
c.LDAPAuthenticator.admin_groups = ["cn=hpc-admins,ou=groups,dc=example,dc=org"]
