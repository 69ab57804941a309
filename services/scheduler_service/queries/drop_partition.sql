-- Drops the table of a day that was taken out of history.
DROP TABLE IF EXISTS taskforge.{partition}
