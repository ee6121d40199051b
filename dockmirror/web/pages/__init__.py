"""The pages for people, in HTML, text and JSON."""
