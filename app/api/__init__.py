"""HTTP resources, one module each. Hides which paths, parameters and status codes stand for which operation.

A handler checks the request, calls the packages below and builds the response.
"""
