"""The client of Pulsar's WebSocket API: endpoint, socket, producer, session, replies."""
