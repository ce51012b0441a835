"""LocalPulsar: a stand-in for Pulsar's WebSocket API, in memory."""
