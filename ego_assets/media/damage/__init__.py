"""What is missing of a damaged or cut-off file, and which of its pictures are not to be trusted."""
