"""Results of produce tasks, stored by Celery's backend or in the script that settles."""
