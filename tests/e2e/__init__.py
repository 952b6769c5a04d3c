"""A package, so that what its conftest starts for all of its tests ends with the last of them."""
