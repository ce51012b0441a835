"""A Django project for the tests of the outbox: a shop with orders."""
