"""Generated from protos/taskforge: never edit by hand."""
