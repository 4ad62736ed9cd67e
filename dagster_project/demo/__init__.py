"""What `ego demo` shows at its end."""
