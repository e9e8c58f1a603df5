"""The server of the pages, without traefik: whom it does not serve."""

import asyncio
import socket
from pathlib import Path
from string import Template

import pytest
from barehub.layout import Layout
from barehub.proxy_unit.pages import Pages, listen


@pytest.mark.parametrize("sent", [b"", b"GET /hub HTTP/1.1\r\nAccept: text/html\r\n\r\n"])
def test_who_sends_nothing_or_reads_nothing_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Any account of the machine can ask, and the descriptors are the supervisor's."""
    monkeypatch.setattr("barehub.proxy_unit.pages.ANSWER", 0.2)
    accepted = []

    class Seen(Pages):
        async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.append(writer.get_extra_info("socket"))
            await super().answer(reader, writer)

    async def story() -> None:
        listener, served = listen(), Seen(Layout(tmp_path))
        served.template = Template("x" * 2**25)  # more than the kernel keeps for the other side
        serving = asyncio.create_task(served.serve(listener))
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(sent)
            async with asyncio.timeout(60):
                while not accepted or accepted[0].fileno() != -1:
                    await asyncio.sleep(0.01)
        serving.cancel()

    asyncio.run(story())
