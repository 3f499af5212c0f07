"""From raw endoscopy video to a de-identified, sharded, described corpus."""

__version__ = "0.1.0"
