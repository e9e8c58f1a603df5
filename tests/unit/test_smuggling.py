"""No bytes of a client's make traefik and what is behind it disagree where a request ends, whose it is, or from where.

traefik as barehub configures it, with tornado behind it, as in the hub and in users' servers. Each attempt is followed
by another request on the same connection: what arrives, in its order, shows where each side saw the end of the first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.unit import proxies
from tests.unit.behind import Proxied, h2, proxied_servers, say, say_h2

ALICE, BOB, LAST = ("alice", "/user/alice/x"), ("bob", "/user/bob/x"), ("hub", "/hub/last")
END = b"GET /hub/last HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n"
INNER = b"GET /user/bob/x HTTP/1.1\r\nHost: hub\r\n\r\n"
ZERO = b"0\r\n\r\n" + INNER


@dataclass(frozen=True)
class Attempt:
    """Bytes to send, and the requests that may arrive behind the proxy: server and path. None is a refusal."""

    sent: bytes
    arrives: Sequence[tuple[str, str]] = ()
    http_2: bool = False

    def send(self, port: int) -> None:
        """Send it, and the request after it; return when all is answered that will be."""
        if self.http_2:
            say_h2(port, self.sent)
        else:
            say(port, self.sent + END)


def post(*lines: bytes, body: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (b"POST /user/alice/x HTTP/1.1", b"Host: hub", *lines, b"")) + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", b"Trailer: X-Evil", body=body + INNER)


def path(target: bytes, *lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (b"GET " + target + b" HTTP/1.1", b"Host: hub", *lines, b""))


LENGTH = b"Content-Length: %d" % len(ZERO)
WHOLE, PARTED = (ALICE, LAST), (ALICE, BOB, LAST)  # INNER is alice's body; or a request that the proxy sees, too

LENGTHS = {
    "CL.TE": Attempt(post(LENGTH, b"Transfer-Encoding: chunked", body=ZERO), PARTED),
    "TE.CL": Attempt(
        post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
        WHOLE,
    ),
    "two lengths": Attempt(post(b"Content-Length: 0", LENGTH, body=INNER)),
    "equal lengths": Attempt(post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), WHOLE),
    "length of another name": Attempt(post(b"Content_Length: 5", body=INNER), PARTED),
    "space before the colon": Attempt(post(b"Content-Length : 5", body=b"hello" + INNER)),
    "body of a GET": Attempt(path(b"/user/alice/x", b"Content-Length: %d" % len(INNER)) + INNER, WHOLE),
    "length as hop-by-hop": Attempt(post(b"Connection: Content-Length", b"Content-Length: 5", body=b"hello"), WHOLE),
    **{
        f"length {value!r}": Attempt(post(b"Content-Length: " + value, body=b"hello" + INNER))
        for value in (b"+5", b"5 5", b"5, 5", b"0x5", b"-5", b"5_0", b"", b"\xd9\xa5", b"99999999999999999999")
    },
}
ENCODINGS = {
    **{
        f"encoding {line!r}": Attempt(post(LENGTH, line, body=ZERO))
        for line in (
            b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: \x0bchunked", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding\0: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"A: b\rTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        )
    },
    **{
        f"encoding {line!r}": Attempt(post(LENGTH, line, body=ZERO), arrives)
        for line, arrives in (
            (b"Transfer-Encoding:\tChunked", PARTED), (b"Transfer-Encoding:\r\n chunked", PARTED),
            (b"A: b\nTransfer-Encoding: chunked", PARTED), (b"Transfer_Encoding: chunked", WHOLE),
            (b"Transfer.Encoding: chunked", WHOLE),
        )
    },
    **{
        f"chunks {body!r:.40}": Attempt(chunked(body))
        for body in (
            b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b"0x5\r\nhello\r\n0\r\n\r\n",
            b"2;\n\nxx\r\n4c\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n",
            b"00000000000000000005\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nX: " + b"a" * 70000 + b"\r\n\r\n",
            b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n",
        )
    },
    "chunk extension": Attempt(chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), PARTED),
    "trailers": Attempt(chunked(b"5\r\nhello\r\n0\r\nX-Evil: 1\r\nContent-Length: 10\r\n\r\n"), PARTED),
}  # fmt: skip
REQUESTS = {
    "HTTP/0.9": Attempt(b"GET /user/alice/x\r\n\r\n"),
    "HTTP/2.0 by a line": Attempt(b"GET /user/alice/x HTTP/2.0\r\nHost: hub\r\n\r\n"),
    "HTTP/1.0 with chunks": Attempt(
        post(b"Transfer-Encoding: chunked", LENGTH, body=ZERO).replace(b"1.1", b"1.0", 1), (ALICE,)
    ),
    "line feeds alone": Attempt(path(b"/user/alice/x").replace(b"\r\n", b"\n"), WHOLE),
    "two hosts": Attempt(path(b"/user/alice/x", b"Host: other")),
    "NUL in a header": Attempt(path(b"/user/alice/x", b"A: b\0c")),
    "escape sequence in a header": Attempt(path(b"/user/alice/x", b"A: \x1b[31m")),
    "CONNECT": Attempt(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n"),
    "Expect": Attempt(post(b"Expect: 100-continue, x", LENGTH, body=ZERO), WHOLE),
    "upgrade to h2c": Attempt(
        path(b"/user/alice/x", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA"), WHOLE
    ),
    "upgrade that is refused": Attempt(
        path(b"/user/alice/x", b"Connection: Upgrade", b"Upgrade: websocket") + INNER, PARTED
    ),
}  # fmt: skip
PATHS = {
    f"path {target!r}": Attempt(path(target), arrives and (*arrives, LAST))
    for target, arrives in {
        b"//user/bob/x": (BOB,),
        b"/%75ser/%62ob/x": (BOB,),
        b"/user/alice/../bob/x": (BOB,),
        b"/user/alice/%2e%2E/bob/x": (BOB,),
        b"http://other/user/bob/x": (BOB,),
        b"/hub/../user/bob/x": (BOB,),
        b"/user/al": (("hub", "/user/al"),),
        b"/user/alice": (("alice", "/user/alice"),),
        b"/user/alice2/x": (("hub", "/user/alice2/x"),),
        b"/user/Alice/x": (("hub", "/user/Alice/x"),),
        b"/user/alice/..;/bob/x": (("alice", "/user/alice/..;/bob/x"),),
        b"/user/alice/%252e%252e/bob": (("alice", "/user/alice/%252e%252e/bob"),),
        b"/user/alice/..%2fbob/x": (("alice", "/user/alice/..%2Fbob/x"),),
        b"/user/alice/..\\bob": (("alice", "/user/alice/..%5Cbob"),),
        b"/user/alice%2f..%2fbob/x": (("hub", "/user/alice%2F..%2Fbob/x"),),
        b"/user/alice%2Fx": (("hub", "/user/alice%2Fx"),),
        b"/%2fuser/bob/x": (("hub", "/%2Fuser/bob/x"),),
        b"/user;x/bob/": (("hub", "/user;x/bob/"),),
        b"/user/bob%20/x": (("hub", "/user/bob%20/x"),),
        b"/user/bob%2e/x": (("hub", "/user/bob./x"),),
        b"/hub/..;/user/bob": (("hub", "/hub/..;/user/bob"),),
        b"///hub": (("hub", "/hub"),),
        b"/user/bob%/x": (), b"/user/bob/ x": (), b"/x\tHTTP/1.1": (),
        b"user/bob": (), b"": (),
    }.items()
} | {f"path {target!r}": Attempt(path(target), (LAST,)) for target in (b"/user/bob%00/x", b"/user/bob#/x")}  # fmt: skip
FORGED = (
    b"X-Forwarded-For: 6.6.6.6", b"x-forwarded-FOR: 6.6.6.6", b"X-Real-Ip: 6.6.6.6", b"X-Forwarded-Proto: https",
    b"X_Forwarded_For: 6.6.6.6", b"X.Real.Ip: 6.6.6.6", b"A: b\nX-Forwarded-For: 6.6.6.6",
    b"A: b\r\n X-Forwarded-For: 6.6.6.6", b"Connection: X-Forwarded-For, X-Real-Ip, X-Forwarded-Proto, Host",
    b"Forwarded: for=6.6.6.6",
)  # fmt: skip
HEADERS = {f"header {line!r}": Attempt(path(b"/user/alice/x", line), WHOLE) for line in FORGED}
HTTP_1 = LENGTHS | ENCODINGS | REQUESTS | PATHS | HEADERS


def http_2(sent: bytes, arrives: Sequence[tuple[str, str]] = (LAST,)) -> Attempt:
    return Attempt(sent, arrives, http_2=True)


HTTP_2 = {
    "HTTP/2: plain": http_2(h2(), WHOLE),
    "HTTP/2: length, too short": http_2(h2((b"content-length", b"3"), body=INNER)),
    "HTTP/2: length, too long": http_2(h2((b"content-length", b"500"), body=INNER)),
    "HTTP/2: chunked": http_2(h2((b"transfer-encoding", b"chunked"), body=ZERO)),
    "HTTP/2: line end in a value": http_2(h2((b"x", b"y\r\nTransfer-Encoding: chunked"), body=ZERO), ()),
    "HTTP/2: line end in a name": http_2(h2((b"x: y\r\ntransfer-encoding", b"chunked"), body=ZERO), ()),
    "HTTP/2: colon in a name": http_2(h2((b"x:y", b"z"))),
    "HTTP/2: capitals in a name": http_2(h2((b"X-Forwarded-For", b"6.6.6.6"))),
    "HTTP/2: line end in the path": http_2(h2(path=b"/ HTTP/1.1\r\nHost: hub\r\n\r\nGET /user/bob/x")),
    "HTTP/2: space in the path": http_2(
        h2(path=b"/user/alice/x HTTP/1.1"), (("alice", "/user/alice/x%20HTTP/1.1"), LAST)
    ),
    "HTTP/2: line end in the method": http_2(h2(method=b"GET /user/bob/x HTTP/1.1\r\nHost: hub\r\n\r\nGET")),
    "HTTP/2: line end in the authority": http_2(h2(authority=b"hub\r\nX-Evil: 1")),
    "HTTP/2: another host": http_2(h2((b"host", b"other")), WHOLE),
    "HTTP/2: two paths": http_2(h2((b":path", b"/user/bob/x"))),
    "HTTP/2: path with dots": http_2(h2(path=b"/user/alice/../bob/x"), (BOB, LAST)),
    "HTTP/2: path without a slash": http_2(h2(path=b"user/bob/x")),
    "HTTP/2: hop-by-hop": http_2(h2((b"connection", b"x-forwarded-for"))),
    "HTTP/2: forged address": http_2(h2((b"x-forwarded-for", b"6.6.6.6"), (b"x_real_ip", b"6.6.6.6")), WHOLE),
    "HTTP/2: trailers": http_2(
        h2(body=b"hello", trailers=((b"transfer-encoding", b"chunked"), (b"x-evil", b"1"))), WHOLE
    ),
    "HTTP/2: websocket": http_2(h2((b":protocol", b"websocket"), method=b"CONNECT")),
}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with proxied_servers(proxies.make_base(tmp_path_factory.mktemp("proxied") / "base")) as found:
        yield found


@pytest.mark.parametrize("name", HTTP_1 | HTTP_2)
def test_both_sides_see_the_same_requests(proxied: Proxied, name: str) -> None:
    attempt = (HTTP_1 | HTTP_2)[name]
    attempt.send(proxied.port)
    assert proxied.arrived() == list(attempt.arrives)
