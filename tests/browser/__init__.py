"""The pages in a real browser, against a whole system that runs."""
