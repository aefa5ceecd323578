"""Entry points: ``python jobs/NAME.py …`` on a laptop, the same by ``ray job submit``."""
