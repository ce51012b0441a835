"""Fast tests of what operators ask and do."""
