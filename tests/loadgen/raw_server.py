"""A server for tests that answers each request with bytes of the test's choice, cut as it says, over real sockets."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = Callable[[socket.socket, int], bool | None]
"""Called with the connection and the number of the request, after its bytes were read; True closes the connection."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: bytes) -> bytes:
    """One server-sent event in a chunk of its own."""
    return chunk(b"data: " + data + b"\n\n")


def delta(text: str, *, key: str = "content") -> bytes:
    """The event of one delta; `text` is put between the quotes as it is."""
    return event(f'{{"id":"r1","choices":[{{"index":0,"delta":{{"{key}":"{text}"}},"finish_reason":null}}]}}'.encode())


FINISH = event(b'{"id":"r1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
USAGE = event(b'{"id":"r1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}')
DONE = event(b"[DONE]")
GOOD = HEAD + delta("a") + delta("b") + FINISH + USAGE + DONE + END


@contextmanager
def raw_server(handler: Handler, *, read: bool = True, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The base URL of a server on localhost that handles each connection in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    numbers = iter(range(1_000_000))

    def connection(sock: socket.socket) -> None:
        with tls.wrap_socket(sock, server_side=True) if tls else sock as sock:
            while not read or _request(sock):
                if handler(sock, next(numbers)):
                    return

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=connection, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"{'https://localhost' if tls else 'http://127.0.0.1'}:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def reset(sock: socket.socket) -> None:
    """Break the connection: the client sees a reset, not an end."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _request(sock: socket.socket) -> bytes:
    """One whole request; empty at the end of the connection."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += sock.recv(65536)
    except OSError:
        return b""
    return data
