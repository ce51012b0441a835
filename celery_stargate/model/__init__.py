"""What the library works on: messages, topics, outcomes, settings. Pure: no I/O."""
