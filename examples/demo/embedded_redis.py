"""An embedded Redis, in a process of its own: ``python -m examples.demo.embedded_redis``.

For machines without a ``redis-server``. It is fakeredis, in memory and slow: enough for a demo.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, NoReturn

from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError


def _mended(handler: Any) -> Any:
    """Return fakeredis' handler of a connection, as Redis behaves."""

    class Handler(handler):  # type: ignore[misc]
        # Nagle's algorithm would hold a pipeline's second answer back for 40 ms.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response() -> Any:
                # An error is an answer: raised, it would end the connection.
                try:
                    return read()
                except ResponseError as error:
                    return error

            self.current_client.read_response = read_response

    return Handler


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(0)


def main() -> None:
    """Serve until SIGTERM; the first line of the output is the URL."""
    signal.signal(signal.SIGTERM, _leave)
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _mended(server.RequestHandlerClass)
    # Its threads would keep the process alive for as long as a client is connected.
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"redis://127.0.0.1:{server.server_address[1]}/0", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
