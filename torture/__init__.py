"""Every bad day, made on purpose: kills, full disks, damaged files, poisoned losses, hostile files, long runs.

``make torture`` runs the long form of all parts and writes one table; a short form of each is in ``tests/torture``.
"""
