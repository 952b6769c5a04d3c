"""What is to be computed: stored audiences, and the definitions that they name."""
