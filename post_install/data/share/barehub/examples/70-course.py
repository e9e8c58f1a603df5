# Tokens for programs, and rights for some people, with a course as the example: a program starts its servers, and an
# instructor may look in. Copy to BASE/jupyterhub_config.d, adapt, then: systemctl restart barehub-hub
from barehub.secret import read_secret

# Who takes part. Without this line if your authenticator manages groups (the overlay oidc does).
c.JupyterHub.load_groups = {"course": {"users": ["ada", "grace"]}}

# A program starts and stops the servers of the course's members. It sends the token, the first line of the file
# course-token beside this one, which `openssl rand -hex 32` can make:
#   curl -X POST -H "Authorization: token $TOKEN" http://127.0.0.1:334/hub/api/users/ada/server
# append, in every file: an assignment would drop what other files have added.
c.JupyterHub.services.append({"name": "course", "api_token": read_secret("course-token")})
c.JupyterHub.load_roles.append(
    {"name": "course", "scopes": ["list:users!group=course", "servers!group=course"], "services": ["course"]}
)

# An instructor sees the course's members at /hub/admin, and may use their servers as they do: their files, their
# terminals. They can start and stop nothing.
c.JupyterHub.load_roles.append(
    {
        "name": "instructor",
        "scopes": ["admin-ui", "list:users!group=course", "read:servers!group=course", "access:servers!group=course"],
        "users": ["alan"],
    }
)
