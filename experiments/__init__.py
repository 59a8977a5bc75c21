"""What takes hours: studies on one runner, each resumable and ending in a page. benchmarks/ is for speed."""
