"""The shared kernel: settings, database, migrations, errors, logs and the gRPC server."""
