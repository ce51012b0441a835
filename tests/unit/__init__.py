"""Fast tests: no server, no socket."""
