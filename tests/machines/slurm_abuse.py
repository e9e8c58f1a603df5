"""A job that abuses its token: what it may tell the hub, and what it may not."""

import json

import requests

from tests.machines.cluster import HEAD, Cluster
from tests.machines.machine import until
from tests.machines.rootfs import USERS_ENVIRONMENT
from tests.machines.slurm_site import user

ABUSE = """\
import json, os, sys, urllib.error, urllib.request

def post(body, token=os.environ["JUPYTERHUB_API_TOKEN"], user=None):
    url = os.environ["JUPYTERHUB_API_URL"] + "/batchspawner"
    headers = {"Authorization": "token " + token} if token else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, body, headers)).status
    except urllib.error.HTTPError as error:
        return error.code

bad = [
    {}, [], 8888, "8888", None, {"port": "8888"}, {"port": True}, {"port": 8888.5}, {"port": [8888]}, {"port": 1023},
    {"port": 65536}, {"port": -1}, {"port": 8888, "exec_prefix": "touch /tmp/owned;"}, {"cmd": ["/bin/sh"]},
    {"port": 8888, "up": True}, {"job_id": "1"}, {"user": "bob"}, {"state": {"job_id": 1}},
]
answers = [post(json.dumps(body).encode()) for body in bad]
answers += [post(b"{"), post(b""), post(b'{"port": 8888}' + b" " * 10**6)]
answers += [post(b'{"port": 8888}', token) for token in ("", "no-token")]
answers += [post(b'{"port": 8888}'), post(b'{"port": 8889}')]
print(json.dumps(answers))
"""


def abuse(cluster: Cluster) -> None:
    """A job that is not what the hub takes it for: alice's `python` is her own program."""
    alice = user(cluster, "alice")
    python = f"{USERS_ENVIRONMENT}/bin/python"
    program = f"#!/bin/sh\n{python} /opt/abuse/abuse.py >/home/alice/answers 2>&1; exec sleep 100\n"
    for node in cluster.nodes.values():
        node.write("/opt/abuse/abuse.py", ABUSE)
        node.write("/opt/abuse/bin/python", program, 0o755)
    alice.ask_for_server(users_environment="/opt/abuse")
    until(lambda: cluster.head.run("test", "-s", "/home/alice/answers").returncode == 0, "what the hub answered")
    answers = json.loads(cluster.head.read("/home/alice/answers"))
    assert answers == [400] * 21 + [403] * 2 + [201, 409]
    said = next(event["message"] for event in alice.progress() if "port" in event["message"])
    assert "connecting to its server at port 8888" in said
    cluster.head.fails("ls", "/tmp/owned")
    assert alice.stop_server().status_code == 204
    # With the token of a server that runs.
    alice.start_server(users_environment=USERS_ENVIRONMENT)
    code = ABUSE.split("answers +=")[0] + "answers.append(post(b'{\"port\": 8888}')); print(answers)"
    assert json.loads(alice.start_kernel().execute(code)) == [400] * 18 + [409]
    assert alice.stop_server().status_code == 204
    # With a token that is no job's, as users can make them.
    made = alice.post("/hub/api/users/alice/tokens", headers={"X-XSRFToken": alice.xsrf("/hub/")}, json={}).json()
    with cluster.head.network():
        answer = requests.post(
            f"http://{HEAD}:334/hub/api/batchspawner",
            json={"port": 8888},
            headers={"Authorization": f"token {made['token']}"},
            timeout=30,
        )
    assert answer.status_code == 403
