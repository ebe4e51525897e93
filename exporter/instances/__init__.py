"""The life of an instance, pure: what responses and rows show, what finished, what to request."""
