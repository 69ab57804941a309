-- Makes the table of one day of history, alone: no lock on the history itself is held meanwhile.
-- Only the owner may: a function of the same name does it (0004_roles.sql). So it is with the other
-- commands about a day.
--
-- $1 the day (UTC)
SELECT taskforge.create_partition($1)
