"""The publishing: the folders as they stand on the Hub composed, checked on their own, and pushed, each as one commit."""
