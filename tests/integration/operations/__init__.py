"""What operators ask and do, on real servers."""
