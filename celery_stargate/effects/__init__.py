"""What follows an outcome: results are stored, callbacks published, waiters notified."""
