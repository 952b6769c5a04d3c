"""Headrace destination: a few lines of JavaScript of your own."""
