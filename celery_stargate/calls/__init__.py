"""The calling side: a message is checked, recorded in its lane, and waited for."""
