"""Tests: `unit` without servers, `contract` and `integration` on real ones, `acceptance` whole."""
