"""What a person looks at after a run: videos, numbers, one page."""
