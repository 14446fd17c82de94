"""What starts, ships and checks the application. Nothing of the application imports it."""
