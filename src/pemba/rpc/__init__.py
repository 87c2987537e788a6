"""The gRPC surface: what arrives is authenticated, checked for shape, and handed to a service; nothing is decided here.

::

    key -> scope -> readiness -> request context -> message -> shape -> service -> message
                                                                   \\-> error -> google.rpc.Status

Every method goes through one wrapper (`method`), so none can be without authentication, scope or deadline.  The key
is looked at before the message is parsed.  This package alone sets gRPC status codes on the server.
"""
