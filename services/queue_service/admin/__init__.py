"""AdminService: tenants, their keys, and the record of what was changed.

servicer.py       the RPCs on the wire
organisations.py  makes, shows and changes organisations
projects.py       makes, shows and changes projects
keys.py           makes, shows and revokes API keys
entries.py        shows the audit log
reach.py          what a caller may see and change; decides for all of them
changing.py       what changes share: masks, and names that are taken
listing.py        pages of lists
conversion.py     rows to messages
"""
