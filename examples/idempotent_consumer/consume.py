"""Add up payments, each once: python consume.py."""

import base64
import json
import os
import sqlite3

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TOPIC = os.environ.get("TOPIC", "payments")
URL = (
    f"{os.environ.get('STARGATE_URL', 'ws://localhost:8080')}"
    f"/ws/v2/consumer/persistent/public/default/{TOPIC}/accounting"
    "?subscriptionType=Failover"
)

database = sqlite3.connect(os.environ.get("DATABASE", "accounts.sqlite3"))
database.executescript(
    "CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY);"
    "CREATE TABLE IF NOT EXISTS payments (id TEXT, amount INTEGER);"
)


def handle(message):
    """Book a payment, unless it is booked; return whether it is new."""
    payment = message["properties"]["id"]
    amount = json.loads(base64.b64decode(message["payload"]))["amount"]
    # The mark and the effect are one transaction: both are there, or neither.
    with database:
        mark = database.execute("INSERT OR IGNORE INTO done VALUES (?)", (payment,))
        if mark.rowcount:
            database.execute("INSERT INTO payments VALUES (?, ?)", (payment, amount))
    return bool(mark.rowcount)


def consume():
    with connect(URL, compression=None, max_size=None, proxy=None) as socket:
        print("waiting for payments", flush=True)
        for text in socket:
            message = json.loads(text)
            new = handle(message)
            # After the commit: a crash before this line means that the message comes again.
            socket.send(json.dumps({"messageId": message["messageId"]}))
            total = database.execute("SELECT sum(amount) FROM payments").fetchone()[0]
            word = "booked" if new else "known already"
            print(f"{message['properties']['id']}: {word}, {total} in all", flush=True)


if __name__ == "__main__":
    try:
        consume()
    except ConnectionClosed as closed:
        raise SystemExit(f"the connection to Pulsar ended: {closed}") from None
    except KeyboardInterrupt:
        pass
