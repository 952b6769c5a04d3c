"""Groups: what events say of them, kept per part of a person like traits."""
