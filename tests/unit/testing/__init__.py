"""Fast tests of the test tools themselves."""
