"""What two or more papers use; nothing here runs by itself, except ``render``."""
