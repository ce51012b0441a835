"""Outbox: each topic's ordered log of pending messages in Redis, with one producer."""
