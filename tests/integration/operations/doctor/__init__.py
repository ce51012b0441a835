"""Mistakes that are planted on real servers; the doctor finds them."""
