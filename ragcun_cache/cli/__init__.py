"""The command line: each file parses one command's arguments, calls the library, and renders what it returns."""
