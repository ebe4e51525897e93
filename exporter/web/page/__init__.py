"""The pages for people: every instance in a table, and why of each."""
