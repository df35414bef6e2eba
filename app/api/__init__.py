"""HTTP resources, one module each. Hides the paths, parameters and status codes of all operations.

A handler checks the request, calls the packages below and builds the response.
"""
