"""Fast tests of what a lane is made of."""
