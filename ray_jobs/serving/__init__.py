"""Detectors at work: over files and folders (``ray_jobs.predict``), and behind a page (``ray_jobs.read_server``).

In: a detector's address and X-rays. Out: findings. The room ``reading`` does the reading; this floor finds the
detector and the pictures, keeps all cores or a cluster busy, and writes or answers.
"""
