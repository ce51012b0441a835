"""The example of docs/testing_with_containers.md."""
