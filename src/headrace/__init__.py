"""The kernel that all Headrace services share."""
