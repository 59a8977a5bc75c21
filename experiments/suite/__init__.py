"""Every task, with every seed and configuration asked for, trained and written up on one page."""
