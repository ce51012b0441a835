"""A Redis without `redis-server`: `python -m celery_stargate.testing.fake_redis`.

It is fakeredis (the extra `testing`): in memory, slow, enough for a test or a demo.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, NoReturn

from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError


def _mended(handler: Any) -> Any:
    """Return fakeredis' connection handler, changed to behave as Redis does."""

    class Handler(handler):  # type: ignore[misc]
        # Nagle's algorithm would delay the second answer of a pipeline by 40 ms.
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response() -> Any:
                # An error is an answer too; raised here, it would end the connection.
                try:
                    return read()
                except ResponseError as error:
                    return error

            self.current_client.read_response = read_response

    return Handler


def _leave(*_: object) -> NoReturn:
    sys.exit(0)


def main() -> None:
    """Serve until SIGTERM; the first line of the output is the URL."""
    signal.signal(signal.SIGTERM, _leave)
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = _mended(server.RequestHandlerClass)
    # Otherwise its threads keep the process alive while a client is connected.
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"redis://127.0.0.1:{server.server_address[1]}/0\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
