"""The overlay `slurm`: what a job may report to the hub."""

import pytest
from barehub_slurm import port
from jupyterhub.apihandlers import default_handlers
from tornado.web import HTTPError


def test_a_port_is_taken() -> None:
    assert port.reported(b'{"port": 1024}') == 1024
    assert port.reported(b'{"port": 65535}') == 65535


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"{}", b"[]", b"8888", b'{"port": "8888"}', b'{"port": true}', b'{"port": 8888.0}',
        b'{"port": null}', b'{"port": 1023}', b'{"port": 65536}', b'{"port": -8888}', b'{"port": 8888, "job_id": "1"}',
        b'{"exec_prefix": "x"}', b'{"port": 8888}' + b" " * 200, b"\xff", b"[" * 99,
    ],
)  # fmt: skip
def test_nothing_else_is(body: bytes) -> None:
    with pytest.raises(HTTPError) as error:
        port.reported(body)
    assert error.value.status_code == 400


def test_batchspawners_handler_is_not_there_any_more() -> None:
    before = list(default_handlers)
    try:
        default_handlers.append((port.PATH, "batchspawner's"))
        port.replace_handler()
        assert [entry for entry in default_handlers if entry[0] == port.PATH] == [(port.PATH, port.PortHandler)]
    finally:
        default_handlers[:] = before
