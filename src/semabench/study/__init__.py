"""Train every mixer on every diagnostic task, and test it on larger pictures."""
