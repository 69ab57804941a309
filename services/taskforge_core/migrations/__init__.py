"""The database's schema, revision by revision: `versions/NNNN_what.sql` beside its `.py`."""
