"""The public names as a user's type checker sees them; nothing here is run."""
