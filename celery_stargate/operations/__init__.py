"""Questions about lanes and actions on them, for people who run the system.

``inspect`` answers what is pending and who owns it, ``doctor`` finds what is set up wrongly, and
``actions`` changes contexts and lanes. Nothing here prints; ``cli`` does.
"""
