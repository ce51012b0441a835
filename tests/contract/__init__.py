"""What this project believes about Pulsar's WebSocket API, tested on `LocalPulsar` and on a real
broker alike. A test that passes on one of them only is a lie that the stand-in tells."""
