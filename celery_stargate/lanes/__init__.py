"""Lanes: each topic's ordered logs of pending messages in Redis.

``outbox`` is the callers' side, ``leased`` the side of the process that holds a lane's lease;
``inbox`` brings outcomes to waiting processes, and ``registry`` lists lanes and workers.
``connections`` makes all clients of Redis, and ``scripts`` runs all scripts.
"""
