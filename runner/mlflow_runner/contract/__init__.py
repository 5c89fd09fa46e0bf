"""What client and runner share: the Submission, the tags and causes, how a run ends."""
