"""Faces in the pictures of exports: shown, or blurred."""
