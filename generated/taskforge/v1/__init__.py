"""Generated from protos/taskforge/v1: never edit by hand."""
