"""The pages for people, as data, as text and in a real browser."""
