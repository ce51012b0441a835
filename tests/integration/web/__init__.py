"""Web servers that publish: what they hand back when they end."""
