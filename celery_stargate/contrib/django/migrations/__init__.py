"""Migrations of the outbox and inbox tables."""
