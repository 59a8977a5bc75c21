"""A dream that somebody drives, in a page or in a notebook."""
