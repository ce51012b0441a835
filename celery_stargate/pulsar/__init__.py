"""Pulsar's WebSocket API: replies, the window, the session and the socket."""
