"""The pages: HTML for people. They read through the same functions as the API, and act by it."""
