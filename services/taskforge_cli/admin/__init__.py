"""`taskforge admin …`: organisations, projects, keys and the audit log.

command.py        the commands below `admin`, and `admin audit`
bootstrapping.py  `admin bootstrap`, which goes to the database itself
organisations.py  `admin organisation …`
projects.py       `admin project …`
quotas.py         the quotas as options
keys.py           `admin key …`
naming.py         what people call things, and the ids that calls take
documents.py      what `--json` prints
rendering.py      tables for people
"""
