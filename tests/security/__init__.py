"""The rows of SECURITY.md that no other folder's tests show."""
