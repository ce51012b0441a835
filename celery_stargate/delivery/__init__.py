"""The side that owns lanes: it sends their messages, settles them and starts the effects."""
