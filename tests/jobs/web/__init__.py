"""The pages, as Django answers them."""
